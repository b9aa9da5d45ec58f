"""The measure for `refresh`: an `httpx.AsyncClient` loop that renews and keeps nothing.

A program of its own: URL, number of in-flight requests, seconds. It prints how many tokens it got and the CPU seconds.
"""

import asyncio
import subprocess
import sys
import time

import httpx


async def _renew(client: httpx.AsyncClient, url: str, end: float) -> int:
    refresh_token, count = "first", 0
    while time.monotonic() < end:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": refresh_token,
            "client_id": "bench",
            "client_secret": "secret-of-bench",
        }
        answer = await client.post(url, data=form)
        refresh_token = answer.raise_for_status().json()["refresh_token"]
        count += 1
    return count


async def _measure(url: str, concurrency: int, seconds: float) -> tuple[int, float]:
    async with httpx.AsyncClient(trust_env=False) as client:
        await asyncio.gather(*(_renew(client, url, time.monotonic() + 0.2) for _ in range(concurrency)))  # warm up
        before, end = time.process_time(), time.monotonic() + seconds
        counts = await asyncio.gather(*(_renew(client, url, end) for _ in range(concurrency)))
        return sum(counts), time.process_time() - before


def cpu_per_post(url: str, concurrency: int, seconds: float) -> float:
    """Return the CPU seconds that one POST costs, measured in a process of its own."""
    argv = [sys.executable, "-m", __name__, url, str(concurrency), str(seconds)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=seconds + 30)
    count, cpu = done.stdout.split()
    return float(cpu) / int(count)


if __name__ == "__main__":
    print(*asyncio.run(_measure(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))))
