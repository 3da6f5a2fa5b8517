# A local user forges a session of somebody else: in a network namespace with the host's address and
# the victim's, a control connection from the victim, and a listener on a port of the range.
import socket, subprocess, sys, time

server, victim, port = sys.argv[1:]
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
for address in server, victim:
    subprocess.run(["ip", "address", "add", address + "/32", "dev", "lo"], check=True)
acceptor = socket.create_server((server, 21))
client = socket.create_connection((server, 21), source_address=(victim, 0))
control, _ = acceptor.accept()
client.send(b"x")
control.recv(1)
listener = socket.create_server((server, int(port)))
print("listening", flush=True)
time.sleep(30)
