"""A clock that is wrong, for programs that are started with a library of ours."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["build_clock"]

# Only while CLOCK_SHIFT_FILE is there, where that is set. Times of files stay as they are. The two
# waits are until a time that the caller has from the wrong clock, or from the one since boot.
_SHIFT = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <sys/syscall.h>
#include <sys/time.h>
static long shift(void) {
  const char *seconds = getenv("CLOCK_SHIFT_S"), *file = getenv("CLOCK_SHIFT_FILE");
  return seconds && (!file || access(file, F_OK) == 0) ? atol(seconds) : 0;
}
int clock_gettime(clockid_t clock, struct timespec *now) {
  int returned = syscall(SYS_clock_gettime, clock, now);
  if (clock == CLOCK_REALTIME) now->tv_sec += shift();
  return returned;
}
static clockid_t put_right(struct timespec *time) {
  if (time->tv_sec < 1000000000) return CLOCK_MONOTONIC;
  time->tv_sec -= shift();
  return CLOCK_REALTIME;
}
int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
  struct timespec right = *until;
  clockid_t clock = put_right(&right);
  return pthread_cond_clockwait(condition, mutex, clock, &right);
}
int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until) {
  struct timespec right = *until;
  clockid_t clock = put_right(&right);
  return sem_clockwait(semaphore, clock, &right);
}
time_t time(time_t *where) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (where) *where = now.tv_sec;
  return now.tv_sec;
}
int gettimeofday(struct timeval *restrict tv, void *restrict zone) {
  struct timespec now;
  int returned = clock_gettime(CLOCK_REALTIME, &now);
  tv->tv_sec = now.tv_sec;
  tv->tv_usec = now.tv_nsec / 1000;
  return returned;
}
"""


def build_clock(compiler: str, library: Path) -> None:
    """Make the library for LD_PRELOAD; CLOCK_SHIFT_S says how many seconds the clock is ahead."""
    source = library.with_suffix(".c")
    source.write_text(_SHIFT)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
