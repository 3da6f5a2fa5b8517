# Other software that attaches BPF programs, or detaches those of others.
#
#   detach LINK...            takes these links off what they hold
#   xdp INTERFACE native|generic
#                             a program that passes every frame
#   tcx INTERFACE ingress|egress first|last next|pass
#                             a program that counts packets, and lets the next program decide or
#                             passes them itself; prints the count whenever it has changed
import ctypes, os, platform, socket, struct, sys, time

BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
MAP_CREATE, MAP_LOOKUP_ELEM, PROG_LOAD, LINK_CREATE, LINK_GET_FD_BY_ID, LINK_DETACH = 0, 1, 5, 28, 30, 34
ARRAY, SCHED_CLS, XDP = 2, 3, 6
ATTACH_XDP, ATTACH_TCX = 37, {"ingress": 46, "egress": 47}
XDP_FLAGS = {"native": 4, "generic": 2}
TCX_FLAGS = {"first": 8, "last": 16}
TCX_ACTION = {"next": -1, "pass": 0}
libc = ctypes.CDLL(None, use_errno=True)


def bpf(command, attribute):
    buffer = ctypes.create_string_buffer(attribute, len(attribute))
    result = libc.syscall(BPF, command, buffer, len(attribute))
    if result < 0:
        sys.exit(f"bpf({command}): {os.strerror(ctypes.get_errno())}")
    return result


def load(kind, *instructions):
    code = ctypes.create_string_buffer(b"".join(instructions))
    licence = ctypes.create_string_buffer(b"GPL")
    attribute = struct.pack(
        "IIQQ", kind, (len(code) - 1) // 8, ctypes.addressof(code), ctypes.addressof(licence)
    )
    return bpf(PROG_LOAD, attribute + bytes(96))


def instruction(code, target=0, source=0, offset=0, immediate=0):
    return struct.pack("BBhi", code, target | source << 4, offset, immediate)


def attach(program, interface, kind, flags):
    index = socket.if_nametoindex(interface)
    # Held until this process ends.
    link = bpf(LINK_CREATE, struct.pack("IIII", program, index, kind, flags) + bytes(32))
    print("attached", flush=True)
    return link


def counting(table, action):
    return load(
        SCHED_CLS,
        instruction(0x62, target=10, offset=-4),  # the key, 0, on the stack
        instruction(0xBF, target=2, source=10),
        instruction(0x07, target=2, immediate=-4),
        instruction(0x18, target=1, source=1, immediate=table),
        instruction(0),
        instruction(0x85, immediate=1),  # look it up
        instruction(0x15, target=0, offset=2),
        instruction(0xB7, target=1, immediate=1),
        instruction(0xDB, target=0, source=1),  # count atomically
        instruction(0xB7, target=0, immediate=action),
        instruction(0x95),
    )


what, *arguments = sys.argv[1:]
if what == "detach":
    for link in arguments:
        bpf(LINK_DETACH, struct.pack("I", bpf(LINK_GET_FD_BY_ID, struct.pack("III", int(link), 0, 0))))
elif what == "xdp":
    interface, mode = arguments
    program = load(XDP, instruction(0xB7, target=0, immediate=2), instruction(0x95))
    link = attach(program, interface, ATTACH_XDP, XDP_FLAGS[mode])
    time.sleep(60)
else:
    interface, direction, place, action = arguments
    table = bpf(MAP_CREATE, struct.pack("IIIII", ARRAY, 4, 8, 1, 0) + bytes(40))
    program = counting(table, TCX_ACTION[action])
    link = attach(program, interface, ATTACH_TCX[direction], TCX_FLAGS[place])
    key, value = ctypes.create_string_buffer(4), ctypes.create_string_buffer(8)
    read = struct.pack("IIQQQ", table, 0, ctypes.addressof(key), ctypes.addressof(value), 0)
    last, end = 0, time.monotonic() + 60
    while time.monotonic() < end:
        bpf(MAP_LOOKUP_ELEM, read)
        (count,) = struct.unpack("Q", value.raw)
        if count != last:
            print(f"count {count}", flush=True)
            last = count
        time.sleep(0.02)
