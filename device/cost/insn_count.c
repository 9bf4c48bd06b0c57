/* QEMU TCG plugin: counts a guest's AArch64 instructions by class, between marks that the guest sets itself.
 *
 * The guest marks with prctl(MARK_OPTION, action, label), an option number Linux does not have:
 *   START    clear the counts, begin a region
 *   TRACE    the same, and also write the counts at every clock_gettime until STOP: profilers read the clock
 *            before and after each operation, so the differences are the counts of single operations
 *   STOP     write the counts of the region
 * Each line written is "<what> <label> <count of each class>", with classes in the order of `enum class`.
 * Counts are exact for one guest thread: a block adds its own numbers when it is entered.
 *
 * Load with: qemu-aarch64 -plugin libinsn_count.so,out=<file>
 * The few declarations needed are repeated here (API version 1), as Debian ships no header for it.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_info;
enum { INLINE_ADD_U64 = 0 };
extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int, void *, uint64_t);
typedef void (*syscall_cb)(qemu_plugin_id_t, unsigned int, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                           uint64_t, uint64_t, uint64_t);
extern void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, syscall_cb);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

enum { SYS_CLOCK_GETTIME = 113, SYS_PRCTL = 167, MARK_OPTION = 0x54534d };
enum { START = 1, STOP = 2, TRACE = 3 };
enum { MAIN_THREAD = 0 };
enum class { DOT_PRODUCT, VECTOR, LOAD_STORE, BRANCH, OTHER, CLASSES };

static uint64_t counts[CLASSES];
static bool tracing;
static FILE *out;

/* Top-level encoding groups of A64: bits 28 to 25. SIMD and floating point (x111) counts as vector, scalar
 * floating point included; vector loads and stores count as load/store. */
static enum class classify(uint32_t insn)
{
    bool dot_by_vector = (insn & 0x9fe0fc00) == 0x0e809400;  /* SDOT, UDOT (vector) */
    bool dot_by_element = (insn & 0x9fc0f400) == 0x0f80e000; /* SDOT, UDOT (by element) */
    if (dot_by_vector || dot_by_element) {
        return DOT_PRODUCT;
    }
    uint32_t group = (insn >> 25) & 15;
    if ((group & 5) == 4) {
        return LOAD_STORE;
    }
    if ((group & 7) == 7) {
        return VECTOR;
    }
    return (group & 14) == 10 ? BRANCH : OTHER;
}

static void count_block(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    uint64_t here[CLASSES] = {0};
    size_t size = qemu_plugin_tb_n_insns(block);
    for (size_t i = 0; i < size; i++) {
        uint32_t insn;
        memcpy(&insn, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, i)), sizeof insn);
        here[classify(insn)]++;
    }
    for (int c = 0; c < CLASSES; c++) {
        if (here[c]) {
            qemu_plugin_register_vcpu_tb_exec_inline(block, INLINE_ADD_U64, &counts[c], here[c]);
        }
    }
}

static void write_counts(const char *what, uint64_t label)
{
    fprintf(out, "%s %llu", what, (unsigned long long)label);
    for (int c = 0; c < CLASSES; c++) {
        fprintf(out, " %llu", (unsigned long long)counts[c]);
    }
    fputc('\n', out);
}

static void on_syscall(qemu_plugin_id_t id, unsigned int cpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                       uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    if (tracing && cpu == MAIN_THREAD && number == SYS_CLOCK_GETTIME) {
        write_counts("clock", a1);
    } else if (number == SYS_PRCTL && a1 == MARK_OPTION) {
        if (a2 == STOP) {
            write_counts("stop", a3);
            fflush(out);
        }
        tracing = a2 == TRACE;
        memset(counts, 0, sizeof counts);
    }
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info,
                                                               int argc, char **argv)
{
    const char *path = argc == 1 && strncmp(argv[0], "out=", 4) == 0 ? argv[0] + 4 : NULL;
    out = path ? fopen(path, "w") : NULL;
    if (!out) {
        fprintf(stderr, "insn_count: give a writable file as out=PATH\n");
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, count_block);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    return 0;
}
