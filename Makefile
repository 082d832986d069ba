# xen-contig: build, boot, test. `make help` explains.

FUZZ ?= all
SECONDS ?= 60
TOOLCHAIN ?= auto
# What the command line of make sets, and its values without an expansion of `$` by make.
GIVEN := $(foreach name,$(.VARIABLES),$(if $(findstring command line,$(origin $(name))),$(name)))
$(foreach name,ARGS XENARGS EXPECT XEN KERNEL CFG TRACE,$(eval override $(name) := $$(value $(name))))
export MODE XEN XENARGS VCPUS MEMORY ARGS TIMEOUT COMPARE INTO FUZZ SECONDS TOOLCHAIN
export KERNEL CFG TYPE EXPECT TRACE DESTDIR PREFIX

TOOLS := sh tests/bed/toolchain.sh
BED := target/debug/bed

# Shell words, read where the recipe runs: a command line keeps its spaces.
LIMIT := $${TIMEOUT:+--timeout "$$TIMEOUT"}
CHOICE := $${XEN:+--xen "$$XEN"} $${XENARGS:+--xen-args "$$XENARGS"} $(LIMIT)
SIZE := $${VCPUS:+--vcpus "$$VCPUS"} $${MEMORY:+--memory "$$MEMORY"}
MODES := $${MODE:+--mode "$$MODE"}
OWN := $${KERNEL:+--kernel "$$KERNEL"} $${CFG:+--cfg "$$CFG"} $${TYPE:+--type "$$TYPE"}
KERNEL_ARGS := $${ARGS:+--args "$$ARGS"}

# Each test program runs under a limit of time and of memory.
LIMITED := --config "target.x86_64-unknown-linux-gnu.runner = ['sh', '$(CURDIR)/tests/bed/limited.sh']"

# Features of the library that are off unless a kernel wants them.
ADAPTERS := --features xen-contig/virtio-drivers,xen-contig/dma-api

# make itself ends with 2 whenever a recipe fails, so the runner's status is said in words.
SAY_STATUS = status=$$?; [ $$status -eq 0 ] || echo "make $@: the runner's exit status is $$status" >&2; exit $$status

.NOTPARALLEL:
.PHONY: help run guest test test-long vcpus drivers virtio conformance soak bench fuzz fuzzer model packages image library lint prose docs gdb trace report report-check clean setup bed parameters

help:
	@echo 'make run     build the image, boot it under Xen in QEMU, say what came of it'
	@echo 'make guest   boot KERNEL, a kernel of your own, by xl create, and classify its end'
	@echo 'make test    lints, host tests, and the whole test bed'
	@echo 'make test-long'
	@echo '             what takes too long for that: fuzzing, soaks, storms, conformance, benchmarks,'
	@echo '             every limit of the order, restarts, packages'
	@echo 'make vcpus   the part of it with one, two and four vCPUs, and 100,000 operations of four'
	@echo 'make drivers drivers that others wrote, unmodified, on the adapters, as dom0 and as driver'
	@echo '             domain: a table of what each moved and cost. make virtio: only the one for virtio disks'
	@echo 'make conformance'
	@echo '             every row of docs/CONFORMANCE.md, on the model and on real Xens: a table'
	@echo 'make soak    100,000 random operations of the allocator, as PV dom0 and as PV domU'
	@echo '             (MEMORY: of the domU [64]), and how Xen sees the domU before and after'
	@echo 'make bench   what things cost in instructions and hypercalls, side by side with Linux'
	@echo 'make trace   show the hypercall trace of the last run that has one'
	@echo 'make report  one HTML page of the last runs: target/report/index.html. It runs nothing itself'
	@echo 'make report-check'
	@echo '             loads that page in headless Chromium, which it installs, and takes pictures of it'
	@echo 'make fuzz    hostile input for the parsers and from Xen, SECONDS for each target'
	@echo 'make packages'
	@echo '             each published package builds from its own files alone'
	@echo 'make image   the kernel image: target/image/xen-contig'
	@echo 'make library the static library for kernels in C: target/image/libxen_contig.a'
	@echo 'make dist    a tarball of image and library with symbols, header, configurations and documents:'
	@echo '             target/dist/'
	@echo 'make install the same files under DESTDIR and PREFIX; make uninstall removes them'
	@echo "make xtf     a directory for XTF's runner and Xen's CI: target/xtf/"
	@echo 'make lint    formatting, clippy, documentation, choice of words and spelling'
	@echo 'make docs    the documentation: target/doc/xen_contig/index.html'
	@echo 'make gdb     boot MODE stopped, in a machine that waits for a debugger'
	@echo 'make clean   remove everything made, the fetched packages included'
	@echo
	@echo 'MODE=pv-dom0|pv-domu|pvh-dom0|pvh-domu|all   [all; gdb: pv-dom0]'
	@echo 'XEN=release  4.17 or 4.20, which Debian packages [4.17; conformance, vcpus, drivers,'
	@echo '                                              virtio and test-long: both; test: both'
	@echo '                                              for vCPUs, drivers, saved guests]'
	@echo 'XEN=path     a hypervisor (xen or xen.gz): dom0 modes; or an installed Xen tree with its'
	@echo '             tools (make install DESTDIR=path): all modes'
	@echo 'XENARGS="..."    options that are added to the command line of Xen'
	@echo 'VCPUS=n         vCPUs of the guest           [1]'
	@echo 'MEMORY=MiB      domU modes: memory of the domain [as in xen-configs/]'
	@echo '                dom0 modes: memory of the machine [2048]; Xen gives dom0 nearly all of it'
	@echo 'ARGS="..."      kernel command line, e.g. ARGS="trace=summary seed=7"'
	@echo 'KERNEL=file CFG=file  guest: the kernel, and an xl configuration; one of them is needed'
	@echo 'TYPE=pv|pvh     guest: the type              [as in CFG, or pvh]'
	@echo 'EXPECT=ktap|xtf|regex:PATTERN'
	@echo '                guest: how it says that it succeeded [ktap]'
	@echo 'TIMEOUT=n       seconds that each guest may take [240]'
	@echo 'COMPARE=file    bench: the bench.json of an earlier run, which this one is compared with'
	@echo 'INTO=file       bench: a document that gets the table, such as docs/BENCHMARK.md'
	@echo 'TRACE="..."     trace: options of the program that shows it, e.g. TRACE="-c" or TRACE=--help'
	@echo 'FUZZ=target     what to fuzz: one of tests/fuzz/corpus/, or all [all]'
	@echo 'SECONDS=n       seconds for each target      [60; test-long: 600]'
	@echo 'PREFIX=path     install: where the files are used [/usr/local]'
	@echo 'DESTDIR=path    install: a directory that stands for / []'
	@echo 'TOOLCHAIN=rustup|debian|auto                 [auto]'
	@echo
	@echo 'Exit status of the runner: 0 success, 3 skip, 4 error, 5 failure, 6 crash, 7 timeout.'

run: parameters image bed
	@(set -x; $(BED) run $(CHOICE) $(MODES) $(SIZE) $(KERNEL_ARGS)); $(SAY_STATUS)

test: parameters lint
	@rm -rf target/tmp/fault-cases
	@$(TOOLS) cargo test --locked $(LIMITED) $(ADAPTERS)
	@$(TOOLS) cargo test --locked $(LIMITED) -p xen-contig --features vmap-sync --test vmap
	@RUSTFLAGS='--cfg loom' $(TOOLS) cargo test --locked $(LIMITED) -p xen-contig --test loom $(ADAPTERS) --target-dir target/loom
	@$(MAKE) --no-print-directory fuzz FUZZ=all SECONDS=1
	@$(MAKE) --no-print-directory bed
	@$(TOOLS) reproduce
	@(set -x; $(BED) test $(CHOICE)); $(SAY_STATUS)

# Ten minutes for each target of the fuzzer, unless SECONDS says otherwise.
test-long: parameters image bed model fuzzer packages
	@(set -x; $(BED) test-long --model $(MODEL) --fuzz $(FUZZER) \
		--seconds $(if $(filter file,$(origin SECONDS)),600,$(SECONDS)) $(CHOICE)); $(SAY_STATUS)

# Each published package builds from its own files alone.
packages: setup
	@$(TOOLS) cargo publish --locked --workspace --dry-run --allow-dirty

vcpus: parameters image bed
	@(set -x; $(BED) vcpus $(CHOICE)); $(SAY_STATUS)

drivers virtio: parameters image bed
	@(set -x; $(BED) $@ $(CHOICE)); $(SAY_STATUS)

# Linux's makefiles check the module that they build with a program that needs this library.
bench: parameters image bed
	@sh tests/bed/host.sh /usr/lib/x86_64-linux-gnu/libelf.so.1=libelf1
	@(set -x; $(BED) bench $(CHOICE) $(KERNEL_ARGS) $${COMPARE:+--compare "$$COMPARE"} \
		$${INTO:+--into "$$INTO"}); $(SAY_STATUS)

# The hypercall trace of the last run that has one. TRACE is shell words, options of the program.
trace: parameters bed
	@set -f; log=$$($(BED) last-trace $${XEN:+--xen "$$XEN"} $(MODES)) || exit; echo "the trace in $$log:" >&2; \
		$(TOOLS) cargo run --locked --quiet -p xen-contig-trace -- $$TRACE "$$log"

# A page of what the targets above have left in target/.
report: setup
	@$(TOOLS) cargo run --locked --quiet -p report -- draw

report-check: report
	@sh tests/bed/host.sh chromium=chromium
	@$(TOOLS) cargo run --locked --quiet -p report -- check chromium; $(SAY_STATUS)

# The model's column is what its own tests say; they are run to the end, so that one that fails shows
# as such.
MODEL := target/conformance-model.log

conformance: parameters image bed model
	@(set -x; $(BED) conformance --model $(MODEL) $(CHOICE) $(SIZE)); $(SAY_STATUS)

model: setup
	@echo 'testing against the model (the output goes to $(MODEL))'
	@mkdir -p target
	@$(TOOLS) cargo test --locked $(LIMITED) --no-fail-fast -- --show-output >$(MODEL) 2>&1 \
		|| grep -q '^test result' $(MODEL) || { tail -n 30 $(MODEL); exit 4; }

soak: parameters image bed
	@(set -x; $(BED) soak $(CHOICE) $(SIZE) $(KERNEL_ARGS)); $(SAY_STATUS)

# The compiler counts the edges that an input takes; stable Rust can. With a target named, these
# flags are for it alone and not for build scripts. GNU ld keeps everything that is counted, so the
# calls to the kernel's hypercall page are linked too; the fuzzer makes none of them.
FUZZER := target/x86_64-unknown-linux-gnu/fuzz/fuzz

fuzzer: export RUSTFLAGS = -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
	-Cllvm-args=-sanitizer-coverage-trace-compares -Clink-arg=-Wl,--defsym=HYPERCALL_PAGE=0
fuzzer: setup
	@$(TOOLS) cargo build --locked -p fuzz --profile fuzz --target x86_64-unknown-linux-gnu

# Finds end the recipe with status 5 and are kept.
fuzz: parameters fuzzer
	@(set -x; $(FUZZER) $(FUZZ) --seconds $(SECONDS))

image: setup
	@$(TOOLS) image

library: setup
	@$(TOOLS) library

lint: setup
	@$(TOOLS) cargo fmt --all --check
	@$(TOOLS) cargo clippy --locked --all-targets $(ADAPTERS) -- -D warnings
	@$(TOOLS) kernel clippy --locked -p xen-contig-kernel -- -D warnings
	@$(TOOLS) kernel clippy --locked -p xen-contig-staticlib -- -D warnings
	@$(MAKE) --no-print-directory docs

lint: prose

# The words of comments and documents, and their spelling.
prose: setup
	@$(TOOLS) cargo run --locked --quiet -p words
	@sh tests/bed/typos.sh --format brief

# With the feature that has the real hypervisor in it: other pages refer to it.
docs: setup
	@RUSTDOCFLAGS='-D warnings' $(TOOLS) cargo doc --locked --no-deps \
		--features xen-contig/real $(ADAPTERS)
	@echo 'the documentation begins at target/doc/xen_contig/index.html'

guest: parameters bed
	@(set -x; $(BED) guest $(OWN) $${EXPECT:+--expect "$$EXPECT"} $(CHOICE) $(SIZE) $(KERNEL_ARGS)); $(SAY_STATUS)

gdb: parameters image bed
	@(set -x; $(BED) gdb $(OWN) $(CHOICE) $(MODES) $(SIZE) $(KERNEL_ARGS)); $(SAY_STATUS)

clean:
	rm -rf target

# What the targets above rest on.

setup: parameters
	@sh tests/bed/host.sh

bed: setup
	@$(TOOLS) cargo build --locked -p bed

# Before anything is installed or built, so that a typing error costs no time.
parameters:
ifeq ($(MAKELEVEL),0)
	@for target in $(MAKECMDGOALS); do sh tests/bed/parameters.sh "$$target" $(GIVEN) || exit; done
endif

.DEFAULT:
	@echo "make: there is no target \`$@\`; make help lists them" >&2; exit 4

# What others take away: a tarball, an installation, a directory for XTF.

RELEASE := sh tests/bed/release.sh

.PHONY: dist install uninstall xtf check-install check-release

dist: image library
	@$(RELEASE) dist

# The image is built only where none is: root may not have the toolchain.
install: parameters check-install target/image/xen-contig target/image/libxen_contig.a
	@$(RELEASE) install

target/image/xen-contig:
	@$(MAKE) --no-print-directory image

target/image/libxen_contig.a:
	@$(MAKE) --no-print-directory library

uninstall: parameters check-install
	@$(RELEASE) uninstall

check-install:
	@$(RELEASE) check-install

xtf: image
	@$(RELEASE) xtf

test: check-release

check-release: image library
	@sh tests/bed/check-release.sh
