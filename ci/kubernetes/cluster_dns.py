#!/usr/bin/python3
"""The DNS of the CI cluster: the names of its Services, as the API server knows them.

usage: cluster_dns.py ADDRESS API PKI

Answers on UDP port 53 of ADDRESS. API is the API server's URL, PKI the folder with ca.crt, admin.crt and admin.key.

It knows NAME.NAMESPACE.svc.cluster.local: the Service's address, or its pods' where it is headless, and there also
HOSTNAME.NAME.NAMESPACE.svc.cluster.local. Any other name does not exist, because pods cannot leave the machine.
"""

import json
import socket
import socketserver
import ssl
import struct
import sys
import time
import urllib.request

MAX_AGE = 1  # seconds that an answer of the API server serves, and that a client may keep one of ours
TYPE_A, TYPE_ANY, CLASS_INTERNET = 1, 255, 1
RESPONSE, AUTHORITATIVE, RECURSION_DESIRED, RECURSION_AVAILABLE = 0x8000, 0x0400, 0x0100, 0x0080
NO_SUCH_NAME = 3
MOST_ADDRESSES = 16  # of 16 bytes each: beside the longest name, they fit the 512 bytes of a datagram


class Services:
    """The addresses behind each name. While the API server is away, those that it named last."""

    def __init__(self, api: str, pki: str) -> None:
        self.api = api
        self.tls = ssl.create_default_context(cafile=f"{pki}/ca.crt")
        self.tls.load_cert_chain(f"{pki}/admin.crt", f"{pki}/admin.key")
        self.known: dict[str, list[str]] = {}
        self.asked = float("-inf")

    def addresses(self, name: str) -> list[str] | None:
        """Return the IPv4 addresses of a name, None when there is no such name."""
        if time.monotonic() - self.asked > MAX_AGE:
            try:
                self.known = self.read()
            except OSError as error:
                print("the API server does not answer:", error, flush=True)
            self.asked = time.monotonic()
        return self.known.get(name)

    def read(self) -> dict[str, list[str]]:
        known: dict[str, list[str]] = {}
        for service in self.get("services"):
            if address := service["spec"].get("clusterIP"):
                known[full_name(service)] = [] if address == "None" else [address]
        headless = {name for name, addresses in known.items() if not addresses}
        for endpoints in self.get("endpoints"):
            if (name := full_name(endpoints)) not in headless:
                continue
            for subset in endpoints.get("subsets", []):
                for pod in subset.get("addresses", []):
                    known[name].append(pod["ip"])
                    if "hostname" in pod:
                        known.setdefault(f"{pod['hostname']}.{name}", []).append(pod["ip"])
        return known

    def get(self, kind: str) -> list[dict]:
        with urllib.request.urlopen(f"{self.api}/api/v1/{kind}", context=self.tls, timeout=2) as response:  # noqa: S310
            return json.load(response)["items"]


def full_name(item: dict) -> str:
    return f"{item['metadata']['name']}.{item['metadata']['namespace']}.svc.cluster.local"


def answer(query: bytes, services: Services) -> bytes:
    """Answer one query (RFC 1035, section 4)."""
    number, flags = struct.unpack_from("!HH", query)
    labels, position = [], 12
    while length := query[position]:
        labels.append(query[position + 1 : position + 1 + length].decode("ascii", "replace"))
        position += 1 + length
    (wanted,) = struct.unpack_from("!H", query, position + 1)
    question = query[12 : position + 5]

    addresses = services.addresses(".".join(labels).lower())
    records = [
        struct.pack("!HHHIH4s", 0xC00C, TYPE_A, CLASS_INTERNET, MAX_AGE, 4, socket.inet_aton(address))
        for address in (addresses or [])[:MOST_ADDRESSES]
        if wanted in (TYPE_A, TYPE_ANY)
    ]
    flags = RESPONSE | AUTHORITATIVE | RECURSION_AVAILABLE | flags & RECURSION_DESIRED
    if addresses is None:
        flags |= NO_SUCH_NAME
    return struct.pack("!6H", number, flags, 1, len(records), 0, 0) + question + b"".join(records)


def main() -> None:
    address, api, pki = sys.argv[1:]
    services = Services(api, pki)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            query, server = self.request
            server.sendto(answer(query, services), self.client_address)

    with socketserver.UDPServer((address, 53), Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
