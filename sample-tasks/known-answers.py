#!/usr/bin/env python3
"""Writes known-answers.json: what the guest programs must print, worked out without them.

Each case has `task`, `args`, `index` (the task's number), `stdin`, and either `stdout` or, for long
or binary output, `stdout_sha256`. The counts of `wordcount` come from `wc` itself. `pi` has no
case: its result depends on the sandbox's random stream. Takes half a minute.
"""

import collections
import functools
import hashlib
import itertools
import json
import math
import os
import pathlib
import random
import re
import subprocess

TEXT = """It was the best of times, it was the worst of times,
it was the age of wisdom, it was the age of foolishness,
\tit was the epoch of belief -- it wasn't the epoch of "incredulity".

No end of line here"""
CAFE = "Caf\u00e9 CAF\u00c9 caf\u00e9, na\u00efve \u4e16\u754c \u4e16\u754c x\u0007y\u000b\f z\r\n"
FASTA = """>one a header with ACGT in it
ACGTACGTTAGC
catgcatgNNNNACGT
>two
TTTTTTTTTTGGGGGGGGGGAAAAAAAAAACCCCCCCCCC
GATTACAGATTACA
"""


# primes


def is_prime(n):
    """Miller-Rabin with bases that decide all n below 3 * 10^23."""
    if n < 2:
        return False
    bases = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
    if any(n % base == 0 for base in bases):
        return n in bases
    twos = ((n - 1) & (1 - n)).bit_length() - 1
    for base in bases:
        power = pow(base, (n - 1) >> twos, n)
        if power not in (1, n - 1) and all((power := power * power % n) != n - 1 for _ in range(twos - 1)):
            return False
    return True


def primes(args, index, _stdin):
    width = int(args[0])
    return f"{sum(map(is_prime, range(index * width, (index + 1) * width)))}\n"


# wordcount


def wordcount(_args, _index, stdin):
    # Before coreutils 9.5, wc counts no word without a printable ASCII byte: so make all of them one.
    printable = re.sub(rb"[^ -~\t-\r]", b"x", stdin.encode())
    environment = {**os.environ, "LC_ALL": "C"}
    counted = subprocess.run(["wc"], input=printable, stdout=subprocess.PIPE, check=True, env=environment)
    lines, words, size = map(int, counted.stdout.split())
    tokens = re.findall(rb"[a-z0-9'\x80-\xff]+", stdin.encode().lower())
    top = sorted(collections.Counter(tokens).items(), key=lambda item: (-item[1], item[0]))[:10]
    summary = {
        "lines": lines,
        "words": words,
        "bytes": size,
        "top": [{"word": word.decode(), "count": count} for word, count in top],
    }
    return json.dumps(summary, ensure_ascii=False, separators=(",", ":")) + "\n"


# kmers


def kmers(args, _index, stdin):
    length = int(args[0])
    counts = collections.Counter()
    for record in re.split(r"^>[^\n]*\n", stdin, flags=re.MULTILINE):
        sequence = re.sub(r"[\r\n]", "", record).upper()
        for start in range(len(sequence) - length + 1):
            kmer = sequence[start : start + length]
            if set(kmer) <= set("ACGT"):
                counts[min(kmer, kmer.translate(str.maketrans("ACGT", "TGCA"))[::-1])] += 1
    return "".join(f"{kmer}\t{count}\n" for kmer, count in sorted(counts.items()))


# mandelbrot: the same operations in the same order, since every bit counts

STOPS = (0.0, 0.18, 0.42, 0.62, 0.84, 1.0)
COLOURS = ((4, 12, 78), (28, 104, 196), (236, 250, 255), (255, 176, 24), (96, 16, 40), (4, 12, 78))


def log2(number):
    mantissa, exponent = math.frexp(number)
    mantissa, exponent = 2 * mantissa, exponent - 1
    if mantissa > math.sqrt(2):
        mantissa, exponent = mantissa / 2, exponent + 1
    s = (mantissa - 1) / (mantissa + 1)
    series = 0.0
    for odd in range(13, 0, -2):
        series = series * (s * s) + 1.0 / odd
    return exponent + 2 * s * series / math.log(2)


def colour(x, y):
    re_part = im_part = 0.0
    for iteration in range(1000):
        re_part, im_part = re_part * re_part - im_part * im_part + x, 2 * re_part * im_part + y
        norm = re_part * re_part + im_part * im_part
        if norm > 65536:
            break
    else:
        return (3.0, 4.0, 12.0)
    time = iteration + 1 - min(log2(log2(norm) / 16), 1.0)
    position = 0.06 + 0.42 * log2(time + 1)
    position -= math.floor(position)
    after = next(place for place, stop in enumerate(STOPS) if position < stop)
    way = (position - STOPS[after - 1]) / (STOPS[after] - STOPS[after - 1])
    way = way * way * (3 - 2 * way)
    return tuple(a + way * (b - a) for a, b in zip(COLOURS[after - 1], COLOURS[after]))


def mandelbrot(args, index, _stdin):
    size, tiles = int(args[0]), int(args[1])
    centre_x, centre_y, scale = map(float, args[2:]) if args[2:] else (-0.7, 0.0, 2.9)
    edge = size // tiles
    top, left = (place * edge for place in divmod(index, tiles))
    middles = [(sample + 0.5) / 3 for sample in range(3)]
    output = bytearray()
    for y, x in itertools.product(range(top, top + edge), range(left, left + edge)):
        sums = [0.0, 0.0, 0.0]
        for down, across in itertools.product(middles, middles):
            re_part = centre_x + ((x + across) / size - 0.5) * scale
            im_part = centre_y - ((y + down) / size - 0.5) * scale
            sums = [total + part for total, part in zip(sums, colour(re_part, im_part))]
        output += bytes(int(total / 9 + 0.5) for total in sums)
    return bytes(output)


# collatz


@functools.cache
def collatz_steps(start):
    steps = 0
    number = start
    while number >= start and number != 1:
        number = 3 * number + 1 if number % 2 else number // 2
        steps += 1
    return steps if number == 1 else steps + collatz_steps(number)


def collatz(args, index, _stdin):
    width = int(args[0])
    starts = range(max(index * width, 1), (index + 1) * width)
    longest = max(starts, key=lambda start: (collatz_steps(start), -start), default=0)
    return f"{longest} {collatz_steps(longest) if longest else 0}\n"


# empty


def empty(_args, _index, _stdin):
    return ""


def random_fasta(bases):
    letters = random.Random(7).choices("ACGTacgtN", weights=(20, 20, 20, 20, 5, 5, 5, 5, 1), k=bases)
    lines = ["".join(letters[start : start + 60]) for start in range(0, bases, 60)]
    return ">random\n" + "\n".join(lines) + "\n"


CASES = [
    (primes, ["10"], 0, ""),
    (primes, ["1000000"], 0, ""),
    (primes, ["1000000"], 9, ""),
    (primes, ["10000000"], 0, ""),
    (primes, ["1"], 2, ""),
    (primes, ["1"], 4, ""),
    (primes, ["1000"], 10**12, ""),
    # 203897 * 84931603 is here, which a sieve whose places overflow 32 bits takes for a prime.
    (primes, ["1000"], 203897 * 84931603 // 1000, ""),
    # Around 2^44, where another method takes over.
    (primes, ["200000"], 2**44 // 200000 - 1, ""),
    (primes, ["200000"], 2**44 // 200000, ""),
    (primes, ["1000"], 18446744073709550, ""),
    (wordcount, [], 0, ""),
    (wordcount, [], 0, TEXT),
    (wordcount, [], 3, CAFE),
    (wordcount, [], 0, TEXT * 100),
    (kmers, ["1"], 0, FASTA),
    (kmers, ["4"], 0, FASTA),
    (kmers, ["31"], 0, FASTA),
    (kmers, ["7"], 0, FASTA.replace("\n", "\r\n")),
    (kmers, ["3"], 0, ""),
    (kmers, ["11"], 0, random_fasta(3000)),
    (mandelbrot, ["64", "4"], 0, ""),
    (mandelbrot, ["64", "4"], 5, ""),
    (mandelbrot, ["64", "4"], 10, ""),
    (mandelbrot, ["48", "2", "-0.743643", "0.131825", "0.003"], 3, ""),
    (collatz, ["10"], 0, ""),
    (collatz, ["1000000"], 0, ""),
    (collatz, ["250000"], 3, ""),
    (collatz, ["1"], 0, ""),
    # A chain of this interval climbs beyond 64 bits.
    (collatz, ["1000"], 12_327_829, ""),
    (empty, [], 0, ""),
]


def main():
    cases = []
    for program, args, index, stdin in CASES:
        output = program(args, index, stdin)
        case = {"task": program.__name__, "args": args, "index": index, "stdin": stdin}
        if isinstance(output, str) and len(output) <= 2000:
            case["stdout"] = output
        else:
            data = output.encode() if isinstance(output, str) else output
            case["stdout_sha256"] = hashlib.sha256(data).hexdigest()
        cases.append(case)
    text = ",\n".join(json.dumps(case) for case in cases)
    pathlib.Path(__file__).with_name("known-answers.json").write_text(f"[\n{text}\n]\n")


if __name__ == "__main__":
    main()
