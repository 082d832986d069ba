//! Does `make` refuse a mistake in its parameters, by the user's own word, before it does anything?

use std::path::Path;
use std::process::Command;

/// Runs the check of a target and returns its message, or `None` if it accepts all.
fn refusal(target: &str, parameters: &[(&str, &str)]) -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut check = Command::new("sh");
    check.arg("tests/bed/parameters.sh").arg(target).current_dir(root).env_clear();
    check.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    for (name, value) in parameters {
        check.arg(name).env(name, value);
    }
    let out = check.output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    match out.status.code() {
        Some(0) => {
            assert_eq!(said, "");
            None
        }
        status => {
            assert_eq!(status, Some(4), "{said}");
            Some(said)
        }
    }
}

#[test]
fn what_is_right_is_accepted() {
    let all = [("MODE", "pvh-domu"), ("XEN", "4.20"), ("XENARGS", "bootscrub=0"), ("VCPUS", "32")];
    assert_eq!(refusal("run", &all), None);
    let rest = [("MEMORY", "1"), ("ARGS", "seed=7 selftest=a,-b*"), ("TIMEOUT", "86400")];
    assert_eq!(refusal("run", &rest), None);
    assert_eq!(refusal("gdb", &[("MODE", "pv-domu")]), None);
    assert_eq!(refusal("run", &[("XEN", "/"), ("TOOLCHAIN", "debian")]), None);
    assert_eq!(refusal("fuzz", &[("FUZZ", "xen"), ("SECONDS", "1")]), None);
    let elf = std::env::current_exe().unwrap().display().to_string();
    assert_eq!(refusal("guest", &[("KERNEL", &elf), ("EXPECT", "regex:login:")]), None);
    assert_eq!(refusal("run", &[("XEN", &elf)]), None);
    let trace = [("MODE", "pv-domu"), ("XEN", "4.20"), ("TRACE", "-T -e exchange")];
    assert_eq!(refusal("trace", &trace), None);
    for target in ["drivers", "virtio"] {
        assert_eq!(refusal(target, &[("XEN", "4.20"), ("TIMEOUT", "300")]), None);
    }
    assert_eq!(refusal("test", &[]), None);
}

#[test]
fn a_kernel_is_told_by_its_first_bytes() {
    let file = std::env::temp_dir().join(format!("bed-parameters-{}", std::process::id()));
    let path = file.display().to_string();
    let kernel = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        refusal("guest", &[("KERNEL", &path)])
    };
    let mut arm = b"\x7fELF".to_vec();
    arm.resize(64, 0);
    arm[18] = 183;
    assert!(kernel(&arm).unwrap().contains("another machine"));
    assert_eq!(kernel(b"\x1f\x8bpacked"), None);
    let mut linux = vec![0; 514];
    assert!(kernel(&linux).unwrap().contains("not an ELF file"));
    linux.extend(b"HdrS");
    assert_eq!(kernel(&linux), None);
    assert!(kernel(b"").unwrap().contains("not an ELF file"));
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn what_is_wrong_is_refused_by_name() {
    let cases = [
        ("run", "MODE", "pv-domx", "MODE is `pv-domx`, but must be one of: pv-dom0"),
        ("run", "XEN", "4.18", "XEN is `4.18`, but must be one of: 4.17 4.20"),
        ("run", "XEN", "/none", "the path of a hypervisor"),
        ("run", "VCPUS", "0", "VCPUS is `0`, but must be a whole number from 1 to 32"),
        ("run", "VCPUS", "33", "`33`"),
        (
            "run",
            "MEMORY",
            "2G",
            "MEMORY is `2G`, but must be a whole number from 1 to 1048576 (MiB)",
        ),
        ("run", "MEMORY", "99999999999999999999", "MEMORY is `9999"),
        ("run", "MEMORY", "1048576", "MEMORY is `1048576`, but this host has"),
        ("run", "TIMEOUT", "-1", "TIMEOUT is `-1`"),
        ("run", "ARGS", "seed=\"1\"", "ARGS is `seed=\"1\"`; leave out quotes"),
        ("run", "XENARGS", "a\nb", "leave out quotes, backslashes and control characters"),
        ("trace", "ARGS", "trace=full", "this target does not use it. It uses: MODE XEN TRACE"),
        ("trace", "TRACE", "-e 'a'", "TRACE is `-e 'a'`; leave out quotes"),
        ("report", "MODE", "all", "this target does not use it. It uses: no parameter"),
        ("run", "mode", "pv-dom0", "`mode` is not a parameter; do you mean MODE?"),
        ("run", "XEN_ARGS", "x", "do you mean XENARGS?"),
        ("run", "COLOUR", "1", "`COLOUR` is not a parameter; make help lists them"),
        (
            "bench",
            "MODE",
            "pv-dom0",
            "MODE is given, but this target does not use it. It uses: XEN",
        ),
        ("image", "MODE", "pv-dom0", "It uses: no parameter"),
        ("test", "MEMORY", "64", "this target does not use it"),
        ("gdb", "MODE", "all", "a debugger needs one mode"),
        ("bench", "COMPARE", "none", "COMPARE is `none`, which is not a file"),
        ("fuzz", "FUZZ", "xn", "FUZZ is `xn`, but must be all or one of: answer"),
        ("fuzz", "SECONDS", "1.5", "SECONDS is `1.5`"),
        ("run", "TOOLCHAIN", "gcc", "TOOLCHAIN is `gcc`"),
        ("guest", "TYPE", "hvm", "TYPE is `hvm`, but must be one of: pv pvh"),
        ("guest", "EXPECT", "tap", "EXPECT is `tap`, but must be ktap, xtf, or regex:PATTERN"),
        ("guest", "KERNEL", "none", "KERNEL is `none`, which is not a file"),
        ("guest", "KERNEL", "Makefile", "KERNEL is `Makefile`, which is not an ELF file"),
        ("run", "XEN", "Makefile", "XEN is `Makefile`, which is not an ELF file"),
    ];
    for (target, name, value, words) in cases {
        let said = refusal(target, &[(name, value)]);
        let said = said.unwrap_or_else(|| panic!("make {target} {name}={value} is accepted"));
        let start = format!("make {target}: ");
        assert!(said.starts_with(&start) && said.contains(words), "{name}={value}: {said}");
    }
    assert!(refusal("guest", &[]).unwrap().contains("KERNEL is not given"));
}
