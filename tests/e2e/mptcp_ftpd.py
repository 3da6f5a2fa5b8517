# pyftpdlib on Multipath TCP sockets (RFC 8684), as programs in Go have them by default. The third
# argument is the class of pyftpdlib.servers: one process for all sessions, or one for each.
import logging, socket, sys, warnings
warnings.simplefilter('ignore')
logging.basicConfig(level=logging.WARNING)
IPPROTO_MPTCP = 262

class Multipath(socket.socket):
    def __init__(self, family=-1, type=-1, proto=-1, fileno=None):
        if fileno is None and type in (-1, socket.SOCK_STREAM) and proto in (-1, 0, 6):
            proto = IPPROTO_MPTCP
        super().__init__(family, type, proto, fileno)

socket.socket = Multipath
root, port, server = sys.argv[1:]
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib import servers
users = DummyAuthorizer()
users.add_anonymous(root)
FTPHandler.authorizer = users
FTPHandler.passive_ports = range(50000, 50032)
FTPHandler.permit_foreign_addresses = True
listening = getattr(servers, server)(('0.0.0.0', int(port)), FTPHandler)
print('listening', flush=True)
listening.serve_forever()
