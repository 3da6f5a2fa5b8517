# What a test does to the maps of a running guard, through their pins.
#
#   copy MAP [key|value OFFSET HEX]...
#                     adds a copy of an entry, with these bytes in it
#   add MAP INDEX NUMBER
#                     adds to the eight bytes of an array's element
#   fill MAP          adds entries that mean nothing until there is no room; prints how many
#   empty MAP         removes what that added to a map of processes
#   find MAP KEY      prints the value, as KEY is: in hexadecimal
import ctypes, errno, os, platform, struct, sys

BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
MAP_LOOKUP_ELEM, MAP_UPDATE_ELEM, MAP_DELETE_ELEM, MAP_GET_NEXT_KEY, OBJ_GET = 1, 2, 3, 4, 7
NOEXIST = 1
# No process has it.
FIRST_PID = 5_000_000
libc = ctypes.CDLL(None, use_errno=True)


def bpf(command, attribute):
    attribute += bytes(64 - len(attribute))
    result = libc.syscall(BPF, command, ctypes.create_string_buffer(attribute, 64), 64)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf({command})")
    return result


def size(table, name):
    with open(f"/proc/self/fdinfo/{table}") as facts:
        return next(int(line.split()[1]) for line in facts if line.startswith(name))


def element(command, table, key, value, flags=0):
    keys = ctypes.create_string_buffer(bytes(key), len(key))
    values = ctypes.create_string_buffer(bytes(value), len(value))
    bpf(command, struct.pack("IxxxxQQQ", table, ctypes.addressof(keys), ctypes.addressof(values), flags))
    return bytearray(values.raw)


action, path, *rest = sys.argv[1:]
name = ctypes.create_string_buffer(path.encode())
table = bpf(OBJ_GET, struct.pack("QII", ctypes.addressof(name), 0, 0))
key_size, value_size = size(table, "key_size:"), size(table, "value_size:")
if action == "copy":
    following = ctypes.create_string_buffer(key_size)
    # Without a key: the first.
    bpf(MAP_GET_NEXT_KEY, struct.pack("IxxxxQQ", table, 0, ctypes.addressof(following)))
    entry = {"key": bytearray(following.raw)}
    entry["value"] = element(MAP_LOOKUP_ELEM, table, entry["key"], bytes(value_size))
    while rest:
        part, offset, text, *rest = rest
        change = bytes.fromhex(text)
        entry[part][int(offset) : int(offset) + len(change)] = change
    element(MAP_UPDATE_ELEM, table, entry["key"], entry["value"], NOEXIST)
elif action == "add":
    key = struct.pack("I", int(rest[0]))
    (word,) = struct.unpack("Q", element(MAP_LOOKUP_ELEM, table, key, bytes(value_size)))
    element(MAP_UPDATE_ELEM, table, key, struct.pack("Q", word + int(rest[1])))
elif action == "fill":
    count = 0
    while True:
        key = os.urandom(key_size) if key_size != 4 else struct.pack("I", FIRST_PID + count)
        try:
            element(MAP_UPDATE_ELEM, table, key, bytes(value_size), NOEXIST)
        except OSError as error:
            if error.errno != errno.E2BIG:
                raise
            break
        count += 1
    print(count)
elif action == "empty":
    for key in range(FIRST_PID, FIRST_PID + size(table, "max_entries:")):
        try:
            name = ctypes.create_string_buffer(struct.pack("I", key))
            bpf(MAP_DELETE_ELEM, struct.pack("IxxxxQ", table, ctypes.addressof(name)))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
elif action == "find":
    try:
        print(element(MAP_LOOKUP_ELEM, table, bytes.fromhex(rest[0]), bytes(value_size)).hex())
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
