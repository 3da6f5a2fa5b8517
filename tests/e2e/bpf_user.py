# Other software that uses BPF: reads a large value from a map of its own, over and over. For as
# long as the kernel copies it, this processor runs no program on an ordinary tracepoint.
import ctypes, os, platform, struct, sys, time

BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
MAP_CREATE, MAP_LOOKUP_ELEM, ARRAY, SIZE = 0, 1, 2, 1 << 20
libc = ctypes.CDLL(None, use_errno=True)


def bpf(command, attribute):
    buffer = ctypes.create_string_buffer(attribute, len(attribute))
    result = libc.syscall(BPF, command, buffer, len(attribute))
    if result < 0:
        sys.exit(f"bpf({command}): {os.strerror(ctypes.get_errno())}")
    return result


table = bpf(MAP_CREATE, struct.pack("IIIII", ARRAY, 4, SIZE, 1, 0) + bytes(40))
key, value = ctypes.create_string_buffer(4), ctypes.create_string_buffer(SIZE)
read = struct.pack("IIQQQ", table, 0, ctypes.addressof(key), ctypes.addressof(value), 0)
os.sched_setaffinity(0, {int(sys.argv[1])})
print("reading", flush=True)
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    bpf(MAP_LOOKUP_ELEM, read)
