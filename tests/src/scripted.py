# An FTP server that says what its client tells it to say, cut as its client wants it cut. One
# thread serves every session. What it knows beyond FTP:
#   SITE MODE whole | bytes | cut N | block | long   how the answer to PASV is sent
#   SITE MODE claim NUMBERS   the answer to PASV has these numbers, the listener another port
#   SITE MODE keep      the listeners of former PASVs stay open
#   SITE MODE mute      no command is repeated in the answer that it is not known
#   SITE SAY HEX        answers with these bytes
#   SITE SPLIT HEX...   answers with these bytes, each word in a segment of its own
#   SITE LATER HEX      answers, and sends these bytes 300 ms later, asked by nobody
import random, selectors, socket, sys, time

port, first, last = map(int, sys.argv[1:])
events = selectors.DefaultSelector()
later = []


class Session:
    def __init__(self, control):
        control.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.control, self.buffer, self.listener, self.mode = control, b'', None, ['whole']
        self.kept = []
        self.say(b'220 scripted\r\n')

    def say(self, *pieces):
        for index, piece in enumerate(pieces):
            if index:
                time.sleep(0.002)
            self.control.sendall(piece)

    def run(self, line):
        verb, _, rest = line.partition(b' ')
        verb = verb.upper()
        if verb == b'SITE':
            word, *rest = rest.split()
            if word == b'MODE':
                self.mode = [part.decode() for part in rest]
                self.say(b'200 so be it\r\n')
            elif word == b'LATER':
                self.say(b'200 later\r\n')
                later.append((time.monotonic() + 0.3, self, bytes.fromhex(rest[0].decode())))
            else:
                self.say(*(bytes.fromhex(part.decode()) for part in rest))
        elif verb == b'PASV':
            self.passive()
        elif verb == b'RETR':
            self.retrieve()
        elif verb in (b'TYPE', b'NOOP', b'USER', b'PASS', b'PORT', b'REIN', b'QUIT'):
            self.say({b'USER': b'331 and?', b'PASS': b'230 in', b'REIN': b'220 anew',
                      b'QUIT': b'221 bye'}
                     .get(verb, b'200 yes') + b'\r\n')
        elif self.mode[0] == 'mute':
            self.say(b'500 unknown\r\n')
        else:
            self.say(b'500 ' + line + b': unknown\r\n')

    def passive(self):
        self.close()
        host = self.control.getsockname()[0]
        while True:
            place = random.randint(first, last)
            self.listener = socket.socket()
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                self.listener.bind((host, place))
                break
            except OSError:
                self.listener.close()
        self.listener.listen(5)
        text = f'227 Entering Passive Mode ({host.replace(".", ",")},{place >> 8},{place & 255})'
        if self.mode[0] == 'claim':
            text = f'227 Entering Passive Mode ({self.mode[1]})'
        text = text.encode() + b'\r\n'
        if self.mode[0] == 'bytes':
            self.say(*(text[at:at + 1] for at in range(len(text))))
        elif self.mode[0] == 'cut':
            at = int(self.mode[1])
            self.say(text[:at], text[at:])
        elif self.mode[0] == 'block':
            self.say(b'227-Entering\r\n211 (1,2,3,4,5,6)\r\n' + text)
        elif self.mode[0] == 'long':
            self.say(text[:4] + b'x' * 200 + text[3:])
        else:
            self.say(text)

    def retrieve(self):
        self.listener.settimeout(5)
        data, _ = self.listener.accept()
        self.close()
        self.say(b'150 here\r\n')
        data.sendall(b'the file')
        data.close()
        self.say(b'226 done\r\n')

    def close(self):
        if self.listener and self.mode[0] == 'keep':
            self.kept.append(self.listener)
        elif self.listener:
            self.listener.close()
        self.listener = None

    def read(self):
        try:
            got = self.control.recv(4096)
        except OSError:
            got = b''
        if not got:
            self.close()
            for listener in self.kept:
                listener.close()
            events.unregister(self.control)
            self.control.close()
            return
        self.buffer += got
        *lines, self.buffer = self.buffer.split(b'\n')
        for line in lines:
            try:
                self.run(line.rstrip(b'\r'))
            except (OSError, AttributeError, ValueError, IndexError) as error:
                print(line, error, file=sys.stderr, flush=True)


acceptor = socket.create_server(('0.0.0.0', port), backlog=64)
events.register(acceptor, selectors.EVENT_READ)
while True:
    for key, _ in events.select(0.02):
        if key.fileobj is acceptor:
            session = Session(acceptor.accept()[0])
            events.register(session.control, selectors.EVENT_READ, session)
        else:
            key.data.read()
    for due in [due for due in later if due[0] <= time.monotonic()]:
        later.remove(due)
        try:
            due[1].say(due[2])
        except OSError:
            pass
