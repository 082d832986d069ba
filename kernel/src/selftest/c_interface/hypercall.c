/* Enters Xen as a kernel in C does: through the page of stubs that Xen filled, 32 bytes for each hypercall. */
#include <stdint.h>

extern uint8_t HYPERCALL_PAGE[];

int64_t c_hypercall(void *context, uint32_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d);

int64_t c_hypercall(void *context, uint32_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    register uint64_t r10 __asm__("r10") = d;
    int64_t answer;

    (void)context;
    __asm__ volatile("call *%[stub]"
                     : "=a"(answer), "+D"(a), "+S"(b), "+d"(c), "+r"(r10)
                     : [stub] "r"(HYPERCALL_PAGE + 32 * number)
                     : "rcx", "r8", "r9", "r11", "memory", "cc");
    return answer;
}
