/* Moves the time of day of a process by the seconds in the file $CHAOS_CLOCK_FILE. The monotonic clock stays right, as
 * it does when an operator or NTP sets a clock. libfaketime 0.9.10 breaks time.sleep() of Python 3.11, which waits for
 * an absolute time of the monotonic clock. Build: cc -shared -fPIC -O2 -o wrong_clock.so wrong_clock.c */

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* System calls, because the functions of libc are the ones that this file replaces. */
static int true_time(clockid_t clock, struct timespec *now) { return (int)syscall(SYS_clock_gettime, clock, now); }

static long offset(void) {
    static volatile long seconds = 0, read_at = -1;
    struct timespec now;
    if (true_time(CLOCK_MONOTONIC, &now) == 0 && now.tv_sec != read_at) { /* read the file once a second */
        const char *path = getenv("CHAOS_CLOCK_FILE");
        char text[32];
        int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        if (file >= 0) {
            ssize_t length = read(file, text, sizeof text - 1);
            close(file);
            if (length > 0) {
                text[length] = 0;
                seconds = strtol(text, NULL, 10);
            }
        }
        read_at = now.tv_sec;
    }
    return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = true_time(clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += offset();
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec real;
    int result = true_time(CLOCK_REALTIME, &real);
    (void)zone;
    if (result == 0 && now) {
        now->tv_sec = real.tv_sec + offset();
        now->tv_usec = real.tv_nsec / 1000;
    }
    return result;
}

time_t time(time_t *now) {
    struct timespec real;
    true_time(CLOCK_REALTIME, &real);
    real.tv_sec += offset();
    if (now) *now = real.tv_sec;
    return real.tv_sec;
}
