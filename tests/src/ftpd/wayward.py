# A small ftpd that does what real ones do only when they are wrong, old or misused. A process for
# each session. What it does out of the ordinary:
#   EPSV ALL      is accepted, and PORT obeyed all the same
#   SITE CONNECT  connects to that port of the client, whatever PORT said
#   SITE BIND     takes a port without listening yet; SITE LISTEN listens on it
#   SITE WAIT     is answered, and goes on once there is a file "go", which it takes away
#   SITE KEEP     one listener is kept, and announced for each PASV
#   SITE WIDE     listens on the wildcard address from now on
#   SITE SHARE    listens on that port beside other sessions (SO_REUSEPORT), and keeps the listener
#   SITE LEAVE    closes the listener that is kept
#   SITE ADVANCE  announces the listener that was there before any session
# When somebody else accepts for it, a grandchild reads each command and is gone when it is obeyed.
import os, signal, socket, sys, time

root, port, first, last = sys.argv[1:]
first, last = int(first), int(last)


def bind(host, number, family, shared=False):
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
    listener.bind((host, number))
    return listener


class Session:
    def __init__(self, control, scouts):
        self.control, self.scouts, self.buffer = control, scouts, b''
        self.listener = self.kept = self.bound = self.target = None
        self.host, self.peer = control.getsockname()[0], control.getpeername()[0]
        self.host_bound = self.host

    def reply(self, line):
        self.control.sendall((line + '\r\n').encode())

    def read(self):
        if not self.scouts:
            return self.control.recv(4096)
        ours, theirs = os.pipe()
        child = os.fork()
        if not child:
            if not os.fork():
                os.write(theirs, self.control.recv(4096))
                os._exit(0)
            os.wait()
            os._exit(0)
        os.close(theirs)
        got = os.read(ours, 4096)
        os.close(ours)
        os.waitpid(child, 0)
        return got

    def serve(self):
        self.reply('220 wayward')
        while True:
            while b'\n' not in self.buffer:
                got = self.read()
                if not got:
                    return
                self.buffer += got
            line, _, self.buffer = self.buffer.partition(b'\n')
            verb, _, rest = line.decode().strip().partition(' ')
            verb, rest = verb.upper(), rest.strip()
            try:
                self.obey(verb, rest)
            except OSError as error:
                self.reply(f'425 {error}')
            if verb == 'QUIT':
                return

    def obey(self, verb, rest):
        if verb == 'PORT':
            numbers = rest.split(',')
            self.target = int(numbers[4]) * 256 + int(numbers[5])
            self.reply('200 to you')
        elif verb == 'EPRT':
            self.target = int(rest.split('|')[3])
            self.reply('200 to you')
        elif verb == 'PASV' or (verb == 'EPSV' and rest.upper() != 'ALL'):
            self.passive(verb)
        elif verb == 'RETR':
            self.retrieve(rest)
        elif verb == 'SITE':
            self.site(*rest.upper().split())
        else:
            self.reply({'USER': '331 and?', 'PASS': '230 in', 'REIN': '220 anew',
                        'QUIT': '221 bye'}.get(verb, '200 yes'))

    def site(self, what, number='0'):
        if what == 'CONNECT':
            self.connect(int(number)).close()
        elif what == 'BIND':
            self.bound = bind(self.host, int(number), self.control.family)
        elif what == 'LISTEN':
            self.bound.listen(64)
        elif what == 'KEEP':
            self.kept = self.listen()
        elif what == 'SHARE':
            self.kept = bind(self.host, int(number), self.control.family, shared=True)
            self.kept.listen(64)
        elif what == 'LEAVE':
            self.kept.close()
            self.kept = self.listener = None
        elif what == 'WIDE':
            self.host_bound = '::'
        elif what == 'ADVANCE':
            self.kept = advance
        elif what == 'WAIT':
            self.reply('200 waiting')
            return self.wait()
        self.reply('200 done')

    def wait(self):
        go = os.path.join(root, 'go')
        deadline = time.monotonic() + 30
        while not os.path.exists(go) and time.monotonic() < deadline:
            time.sleep(0.002)
        os.unlink(go)

    def connect(self, number):
        data = socket.socket(self.control.family)
        data.settimeout(5)
        data.connect((self.peer, number))
        return data

    def listen(self):
        while True:
            number = first + 1 + int.from_bytes(os.urandom(2), 'big') % (last - first)
            try:
                listener = bind(self.host_bound, number, self.control.family)
                listener.listen(64)
                return listener
            except OSError:
                listener = None

    def passive(self, verb):
        self.target = None
        if self.listener and not self.kept:
            self.listener.close()
        self.listener = self.kept or self.listen()
        number = self.listener.getsockname()[1]
        if verb == 'EPSV':
            self.reply(f'229 Entering Extended Passive Mode (|||{number}|)')
        else:
            place = self.host.removeprefix('::ffff:').replace('.', ',')
            self.reply(f'227 Entering Passive Mode ({place},{number >> 8},{number & 255}).')

    def retrieve(self, name):
        if self.target:
            data = self.connect(self.target)
        else:
            self.listener.settimeout(5)
            data, _ = self.listener.accept()
            if not self.kept:
                self.listener.close()
                self.listener = None
        self.reply('150 here')
        with open(os.path.join(root, os.path.basename(name)), 'rb') as file:
            data.sendall(file.read())
        data.close()
        self.reply('226 done')


if port == '-':
    control = socket.socket(fileno=0)
    # The scouts are who reads: this process never does.
    Session(control, True).serve()
    sys.exit()
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
acceptor = socket.create_server(('::', int(port)), family=socket.AF_INET6, dualstack_ipv6=True)
advance = bind('::', first, socket.AF_INET6)
advance.listen(64)
while True:
    control, _ = acceptor.accept()
    if not os.fork():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        acceptor.close()
        Session(control, False).serve()
        os._exit(0)
    control.close()
