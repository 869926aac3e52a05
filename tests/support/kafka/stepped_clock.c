/* Preloaded into a process, adds the seconds that a file has (int64, the machine's byte order; named by STEPPED_CLOCK)
 * to the wall clock. The file is mapped, so whoever writes it steps the clock of a running process. The monotonic
 * clock, and waits that are measured by it, go on as they are: libfaketime moves those too, and a broker does not start
 * under it. A JVM asks only clock_gettime for the time of day. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static int (*machines)(clockid_t, struct timespec *);
static volatile const int64_t *seconds;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("STEPPED_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *at = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *seconds, PROT_READ, MAP_SHARED, file, 0);
    if (at == MAP_FAILED) {
        perror("STEPPED_CLOCK");
        abort();
    }
    close(file);
    seconds = at;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    if (!machines) /* asked before the constructor ran */
        machines = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = machines(clock, now);
    if (!failed && seconds && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += *seconds;
    return failed;
}
