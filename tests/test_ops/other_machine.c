/*
 * Runs one function of the native library where Python cannot run, for other_machine.py: reads what it needs from
 * standard input, and writes to standard output what it returned and what it left in memory.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    int64_t address; /* where it was in the process that asks */
    int64_t size;
    int64_t pointers; /* whether it holds addresses, and nothing else that is wanted back */
    char *here;
} Region;

static void must(int fine, const char *what) {
    if (fine) return;
    fprintf(stderr, "%s %s\n", what, dlerror());
    exit(1);
}

static void take(void *to, size_t size) { must(fread(to, 1, size, stdin) == size, "input ends"); }

static void redirect(Region region, const Region *regions, int64_t count) {
    for (int64_t at = 0; at + 8 <= region.size; at += 8) {
        int64_t word;
        memcpy(&word, region.here + at, 8);
        for (int64_t i = 0; i < count; i++)
            if (word == regions[i].address) memcpy(region.here + at, &regions[i].here, 8);
    }
}

int main(int argc, char **argv) {
    struct {
        char name[64];
        int64_t arguments, isa, threads, regions; /* the first `arguments` regions are the function's */
    } call;
    must(argc == 2, "usage: other_machine LIBRARY");
    void *library = dlopen(argv[1], RTLD_NOW);
    must(library != NULL, "dlopen");
    take(&call, sizeof call);
    void *function = dlsym(library, call.name);
    must(function != NULL, "dlsym");
    Region *regions = calloc((size_t)call.regions, sizeof *regions);
    for (int64_t i = 0; i < call.regions; i++) {
        take(&regions[i], 3 * sizeof(int64_t));
        regions[i].here = aligned_alloc(64, (size_t)(regions[i].size / 64 + 1) * 64);
        take(regions[i].here, (size_t)regions[i].size);
    }
    for (int64_t i = 0; i < call.regions; i++)
        if (regions[i].pointers) redirect(regions[i], regions, call.regions);
    int64_t result = -1;
    if (call.arguments == 0) result = ((int64_t (*)(void))function)();
    if (call.arguments == 1)
        result = ((int64_t (*)(void *, int64_t, int64_t))function)(regions[0].here, call.isa, call.threads);
    if (call.arguments == 2)
        result = ((int64_t (*)(void *, void *, int64_t, int64_t))function)(
            regions[0].here, regions[1].here, call.isa, call.threads);
    fwrite(&result, sizeof result, 1, stdout);
    for (int64_t i = 0; i < call.regions; i++)
        if (!regions[i].pointers) fwrite(regions[i].here, 1, (size_t)regions[i].size, stdout);
    return 0;
}
