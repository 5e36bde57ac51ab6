"""Accelerators and what their makers publish of them.

Peaks are dense (no sparsity), in 10^12 operations per second, from the makers' data sheets and
architecture white papers: NVIDIA Tesla K80, P100, V100, V100S, T4, A10G, A30, A40, A100, L4, L40,
L40S, H100, H200, HGX B200 data sheets; NVIDIA Turing, Ampere (GA102), and Ada white papers for
GeForce and RTX (with 32-bit accumulation); Google Cloud TPU system architecture pages (v3, v4,
v5e, v5p, v6e; per chip); Graphcore GC200 and Bow product briefs; Intel Gaudi 2 white paper; Huawei
Ascend 910 announcement; AMD Radeon RX 7900 XTX specification. `half` is 16-bit input on matrix
units where there are any; `single` is TF32 on matrix units where there are any, else plain 32 bit;
one GPU of the two on a K80 board. `link` is the sum of both directions to neighbours: NVLink, ICI,
IPU-Link, Ethernet, else PCI Express. A None is a figure that nobody published or that does not
compare (memory inside the chip). The first Gaudi's peak was never published: it is not here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Device:
    """One accelerator as its maker describes it."""

    name: str
    generation: str  #: architecture
    half: float  #: 10^12/s, 16 bit
    single: float | None  #: 10^12/s, 32 bit
    bandwidth: float | None  #: GB/s of its memory
    memory: float  #: GB
    link: float  #: GB/s to its neighbours, both directions


DEVICES = {
    device.name: device
    for device in (
        Device("K80", "Kepler", 4.4, 4.4, 240, 12, 32),
        Device("P100", "Pascal", 21.2, 10.6, 732, 16, 160),
        Device("GTX 1080 Ti", "Pascal", 11.3, 11.3, 484, 11, 32),
        Device("V100", "Volta", 125, 15.7, 900, 32, 300),
        Device("V100 PCIe", "Volta", 112, 14.0, 900, 32, 32),
        Device("V100S PCIe", "Volta", 130, 16.4, 1134, 32, 32),
        Device("T4", "Turing", 65, 8.1, 320, 16, 32),
        Device("RTX 2070 Max-Q", "Turing", 21.8, 5.5, 384, 8, 32),
        Device("RTX 2080 Max-Q", "Turing", 25.8, 6.4, 384, 8, 32),
        Device("RTX 2080 Super Max-Q", "Turing", 26.5, 6.6, 352, 8, 32),
        Device("RTX 2080 Ti", "Turing", 53.8, 13.4, 616, 11, 32),
        Device("Quadro RTX 8000", "Turing", 130.5, 16.3, 672, 48, 100),
        Device("A10G", "Ampere", 70, 35, 600, 24, 64),
        Device("A30", "Ampere", 165, 82, 933, 24, 200),
        Device("A40", "Ampere", 149.7, 74.8, 696, 48, 112),
        Device("A100 40GB", "Ampere", 312, 156, 1555, 40, 600),
        Device("A100 40GB PCIe", "Ampere", 312, 156, 1555, 40, 64),
        Device("A100 80GB", "Ampere", 312, 156, 2039, 80, 600),
        Device("A100 80GB PCIe", "Ampere", 312, 156, 1935, 80, 64),
        Device("RTX A5000", "Ampere", 111.1, 55.6, 768, 24, 112),
        Device("RTX A6000", "Ampere", 154.8, 77.4, 768, 48, 112),
        Device("RTX 3080", "Ampere", 59.5, 29.8, 760, 10, 64),
        Device("RTX 3090", "Ampere", 71, 35.6, 936, 24, 112),
        Device("L4", "Ada", 121, 60, 300, 24, 64),
        Device("L40", "Ada", 181, 90.5, 864, 48, 64),
        Device("L40S", "Ada", 362, 183, 864, 48, 64),
        Device("RTX 4090", "Ada", 165, 82.6, 1008, 24, 64),
        Device("H100", "Hopper", 989, 494, 3352, 80, 900),
        Device("H100 PCIe", "Hopper", 756, 378, 2039, 80, 128),
        Device("H100 NVL", "Hopper", 835, 417, 3938, 94, 600),
        Device("H200", "Hopper", 989, 494, 4800, 141, 900),
        Device("B200", "Blackwell", 2250, 1125, 8000, 180, 1800),
        Device("RX 7900 XTX", "RDNA 3", 122.8, 61.4, 960, 24, 64),
        Device("TPU v3", "TPU v3", 123, None, 900, 32, 160),
        Device("TPU v4", "TPU v4", 275, None, 1228, 32, 300),
        Device("TPU v5e", "TPU v5", 197, None, 819, 16, 200),
        Device("TPU v5p", "TPU v5", 459, None, 2765, 95, 600),
        Device("TPU v6e", "TPU v6", 918, None, 1640, 32, 448),
        Device("IPU GC200", "IPU 2", 250, 62.5, None, 0.9, 320),
        Device("IPU Bow", "IPU 2", 350, 87.5, None, 0.9, 320),
        Device("Gaudi 2", "Gaudi 2", 432, None, 2450, 96, 600),
        Device("Ascend 910", "Ascend 910", 256, None, 1200, 32, 60),
    )
}

#: What free text must hold to mean a device: the first that fits does. Spaces, dashes and marks
#: of trade are taken out before; what has at most SHORT letters must stand alone ("A40", "A4000").
SHORT = 3
_WORDS = (
    ("b200", "B200"),
    ("h200", "H200"),
    ("h100nvl", "H100 NVL"),
    ("h100pcie", "H100 PCIe"),
    ("h100", "H100"),
    ("a100pcie40", "A100 40GB PCIe"),
    ("a10040gbpcie", "A100 40GB PCIe"),
    ("a100pcie", "A100 80GB PCIe"),
    ("a10080gbpcie", "A100 80GB PCIe"),
    ("a100sxm440", "A100 40GB"),
    ("a100sxm40", "A100 40GB"),
    ("a10040", "A100 40GB"),
    ("a100", "A100 80GB"),
    ("v100spcie", "V100S PCIe"),
    ("v100pcie", "V100 PCIe"),
    ("v100", "V100"),
    ("p100", "P100"),
    ("k80", "K80"),
    ("a10g", "A10G"),
    ("a30", "A30"),
    ("a40", "A40"),
    ("a5000", "RTX A5000"),
    ("a6000", "RTX A6000"),
    ("l40s", "L40S"),
    ("l40", "L40"),
    ("l4", "L4"),
    ("4090", "RTX 4090"),
    ("3090", "RTX 3090"),
    ("3080", "RTX 3080"),
    ("2070maxq", "RTX 2070 Max-Q"),
    ("2080supermaxq", "RTX 2080 Super Max-Q"),
    ("2080maxq", "RTX 2080 Max-Q"),
    ("2080ti", "RTX 2080 Ti"),
    ("rtx8000", "Quadro RTX 8000"),
    ("1080ti", "GTX 1080 Ti"),
    ("7900xtx", "RX 7900 XTX"),
    ("tputrillium", "TPU v6e"),
    ("tpuv6e", "TPU v6e"),
    ("tpuv5p", "TPU v5p"),
    ("tpuv5e", "TPU v5e"),
    ("tpuv4", "TPU v4"),
    ("tpuv3", "TPU v3"),
    ("bow", "IPU Bow"),
    ("gc200", "IPU GC200"),
    ("gaudi2", "Gaudi 2"),
    ("ascend910", "Ascend 910"),
    ("t4", "T4"),
)


def recognise(text: str) -> Device | None:
    """The device that free text such as "NVIDIA A100-SXM4-80GB (400W)" names; None when none."""
    words = re.findall(r"[a-z0-9]+", re.sub(r"\(r\)|\(tm\)", "", text.lower()))
    plain = "".join(words)
    for word, name in _WORDS:
        if word in (words if len(word) <= SHORT else plain):
            return DEVICES[name]
    return None
