# A small ftpd of a shape that nobody can attribute from outside: one thread reads every control
# connection, the threads of a pool carry the commands out, one after the other of whichever
# session. With TLS, it begins with the first byte.
#   SITE PLACE n  the next PASV or EPSV listens on this port
import os, queue, random, selectors, socket, ssl, sys, threading

root, port, first, last, certificate = sys.argv[1:]
tls = None
if certificate:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
jobs = queue.Queue()


class Session:
    def __init__(self, control):
        self.control, self.buffer, self.listener, self.place = control, b'', None, None
        self.reply('220 reactor')

    def reply(self, line):
        self.control.sendall((line + '\r\n').encode())

    # In the pool, one command of a session at a time, as its client waits for each reply.
    def run(self, line):
        verb, _, rest = line.partition(' ')
        verb = verb.upper()
        if verb in ('PASV', 'EPSV'):
            self.passive(verb)
        elif verb == 'RETR':
            self.retrieve(rest)
        elif verb == 'SITE':
            self.place = int(rest.split()[1])
            self.reply('200 there')
        elif verb == 'QUIT':
            self.reply('221 bye')
            self.control.shutdown(socket.SHUT_RDWR)
        else:
            self.reply({'USER': '331 and?', 'PASS': '230 in'}.get(verb, '200 yes'))

    def passive(self, verb):
        self.close()
        host = self.control.getsockname()[0]
        ports = random.sample(range(int(first), int(last) + 1), int(last) - int(first) + 1)
        if self.place:
            ports, self.place = [self.place], None
        for port in ports:
            self.listener = socket.socket(self.control.family)
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                self.listener.bind((host, port))
                self.listener.listen(5)
                break
            except OSError:
                self.listener.close()
        if verb == 'EPSV':
            self.reply(f'229 Entering Extended Passive Mode (|||{port}|)')
        else:
            place = host.removeprefix('::ffff:').replace('.', ',')
            self.reply(f'227 Entering Passive Mode ({place},{port >> 8},{port & 255}).')

    def retrieve(self, name):
        self.listener.settimeout(5)
        data, _ = self.listener.accept()
        self.close()
        self.reply('150 here')
        if tls:
            data = tls.wrap_socket(data, server_side=True)
        with open(os.path.join(root, name), 'rb') as file:
            data.sendall(file.read())
        if tls:
            data = data.unwrap()
        data.close()
        self.reply('226 done')

    def close(self):
        if self.listener:
            self.listener.close()
            self.listener = None


def work():
    while True:
        session, lines = jobs.get()
        try:
            for line in lines:
                session.run(line)
        except (OSError, AttributeError) as error:
            print(lines, error, file=sys.stderr, flush=True)
        done.put(session)
        wake.send(b'.')


done = queue.Queue()
woken, wake = socket.socketpair()
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
acceptor = socket.create_server(('::', int(port)), family=socket.AF_INET6, dualstack_ipv6=True)
events = selectors.DefaultSelector()
events.register(acceptor, selectors.EVENT_READ)
events.register(woken, selectors.EVENT_READ)


# Only here are control connections read. A session is not watched while the pool works for it.
def read(session):
    try:
        got = session.control.recv(4096)
    except OSError:
        got = b''
    if not got:
        session.close()
        session.control.close()
        return
    session.buffer += got
    *lines, session.buffer = session.buffer.split(b'\n')
    if lines:
        jobs.put((session, [line.decode().strip() for line in lines]))
    else:
        events.register(session.control, selectors.EVENT_READ, session)


while True:
    for key, _ in events.select():
        if key.fileobj is acceptor:
            control, _ = acceptor.accept()
            control.settimeout(10)
            try:
                if tls:
                    control = tls.wrap_socket(control, server_side=True)
                session = Session(control)
            except OSError:
                control.close()
                continue
            events.register(control, selectors.EVENT_READ, session)
        elif key.fileobj is woken:
            for _ in range(len(woken.recv(1024))):
                session = done.get()
                events.register(session.control, selectors.EVENT_READ, session)
        else:
            events.unregister(key.fileobj)
            read(key.data)
