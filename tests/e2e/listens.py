# Somebody without rights who listens on one port after the other, as fast as he can, for a minute.
#
#   FIRST COUNT FILES    the ports, and how many files he holds open meanwhile
import os, resource, socket, sys, time

first, count, files = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (files + 64, files + 64))
held = [os.dup(0) for _ in range(files)]
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
print("begun", flush=True)
end = time.monotonic() + 60
while time.monotonic() < end:
    for port in range(first, first + count):
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("127.0.0.1", port))
        one.listen()
        one.close()
