# A flood of SYNs with random IPv4 sources: live frames of BPF_PROG_TEST_RUN, which leave by an
# interface of this network namespace as fast as the rate allows.
#
#   flood.py INTERFACE DESTINATION_MAC DESTINATION PORT RATE SECONDS [SOURCE]
#
# With SOURCE all come from that address. Prints how many were sent.
import ctypes, os, platform, socket, struct, sys, time

BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
PROG_LOAD, TEST_RUN, XDP, LIVE_FRAMES = 5, 10, 6, 2
libc = ctypes.CDLL(None, use_errno=True)


def bpf(command, attribute):
    buffer = ctypes.create_string_buffer(attribute, len(attribute))
    result = libc.syscall(BPF, command, buffer, len(attribute))
    if result < 0:
        sys.exit(f"bpf({command}): {os.strerror(ctypes.get_errno())}")
    return result


def instruction(code, target=0, source=0, offset=0, immediate=0):
    return struct.pack("BBhi", code, target | source << 4, offset, immediate)


interface, hardware, destination, port, rate, seconds, *source = sys.argv[1:]
randomise = [
    instruction(0x85, immediate=7),  # bpf_get_prandom_u32()
    instruction(0x63, target=7, source=0, offset=26),  # the source address
    instruction(0x6B, target=7, source=0, offset=34),  # the source port
]
code = b"".join(
    [
        instruction(0x61, target=7, source=1, offset=0),
        instruction(0x61, target=3, source=1, offset=4),
        instruction(0xBF, target=4, source=7),
        instruction(0x07, target=4, immediate=54),
        instruction(0x2D, target=4, source=3, offset=0 if source else 3),
        *([] if source else randomise),
        instruction(0xB7, target=0, immediate=3),  # XDP_TX
        instruction(0x95),
    ]
)
licence = ctypes.create_string_buffer(b"GPL")
code = ctypes.create_string_buffer(code)
program = bpf(
    PROG_LOAD,
    struct.pack(
        "IIQQ", XDP, (len(code) - 1) // 8, ctypes.addressof(code), ctypes.addressof(licence)
    )
    + bytes(96),
)
frame = (
    bytes.fromhex(hardware.replace(":", ""))
    + bytes([2, 0, 0, 0, 0, 9])
    + struct.pack(">HBBHHHBBH", 0x0800, 0x45, 0, 40, 1, 0, 64, 6, 0)
    + socket.inet_aton(source[0] if source else "198.18.0.1")
    + socket.inet_aton(destination)
    + struct.pack(">HHIIBBHHH", 4711, int(port), 1, 0, 0x50, 0x02, 1024, 0, 0)
    + bytes(10)
)
data = ctypes.create_string_buffer(frame, len(frame))
context = struct.pack("IIIIII", 0, len(frame), 0, socket.if_nametoindex(interface), 0, 0)
context = ctypes.create_string_buffer(context, len(context))
# A call takes some 20 milliseconds, however few frames it sends.
batch = max(int(rate) // 25, 1)
run = struct.pack(
    "IIIIQQIIIIQQIII",
    program, 0, len(frame), 0, ctypes.addressof(data), 0, batch, 0, len(context), 0,
    ctypes.addressof(context), 0, LIVE_FRAMES, 0, 0,
)
sent, start = 0, time.monotonic()
print("flooding", flush=True)
while (now := time.monotonic() - start) < float(seconds):
    if sent < now * int(rate):
        bpf(TEST_RUN, run)
        sent += batch
    else:
        time.sleep(0.001)
print(f"sent {sent}", flush=True)
