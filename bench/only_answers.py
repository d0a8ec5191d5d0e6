"""``python -m bench.only_answers FD FILE``: reads each request and answers with a file, to see what a client costs."""

import re
import socket
import sys
from pathlib import Path

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


def main(descriptor: int, answer: bytes) -> None:
    """Answer the requests of one connection after the other, at the listening socket of a descriptor."""
    with socket.socket(fileno=descriptor) as listener:
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection:
                _serve(connection, answer)


def _serve(connection: socket.socket, answer: bytes) -> None:
    seen = bytearray()
    while data := connection.recv(2**18):
        seen += data
        head, end, body = seen.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if end and len(body) >= (int(length[1]) if length else 0):
            connection.sendall(answer)
            seen.clear()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]).read_bytes())
