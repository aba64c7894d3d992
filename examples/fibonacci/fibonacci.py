"""Prints the N-th Fibonacci number: `python3 fibonacci.py N`."""

import sys


def fibonacci(n: int) -> int:
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


n = int(sys.argv[1])
print(f"fibonacci({n}) = {fibonacci(n)}")
