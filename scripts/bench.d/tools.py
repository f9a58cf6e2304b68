"""Command lines of netkat and its contenders."""

from lab import ADDRESSES


def client(programs, tool, family, port, *, send, congestion=None):
    """Returns the command of a client that sends its input or receives to its output. A receiving client
    closes its side after the peer's."""
    address = ADDRESSES[family]["there"]
    match tool:
        case "netkat":
            options = ["--congestion", congestion] if congestion else []
            return [programs.netkat, *options, *([] if send else ["--no-shutdown"]), address, port]
        case "original":
            return [programs.original, address, port]
        case "nc":
            return ["nc.openbsd", "-N" if send else "-d", address, port]
        case "socat":
            there = f"TCP{family}:{bracketed(address)}:{port}"
            return ["socat", "-u", "-b131072", *(["-", there] if send else [there, "-"])]
        case "kernel":
            return [programs.kernel_end, "stream", "--connect", f"{bracketed(address)}:{port}"]
    raise ValueError(tool)


def server(programs, tool, family, port, *, send, end="here"):
    """Returns the command of a server for one client; otherwise like `client`."""
    address = ADDRESSES[family][end]
    match tool:
        case "netkat":
            return [programs.netkat, "-v", "-l", *([] if send else ["--no-shutdown"]), address, port]
        case "nc":
            return ["nc.openbsd", "-N" if send else "-d", "-l", address, port]
        case "socat":
            here = f"TCP{family}-LISTEN:{port},reuseaddr,bind={bracketed(address)}"
            return ["socat", "-u", "-b131072", *(["-", here] if send else [here, "-"])]
        case "kernel":
            return [programs.kernel_end, "stream", "--listen", f"{bracketed(address)}:{port}"]
    raise ValueError(tool)


def bracketed(address):
    return f"[{address}]" if ":" in address else address


def start_server(lab, tool, command, port, end="here", protocol="t", **streams):
    """Starts `command` and waits until it listens."""
    process = lab.start(end, *command, **streams)
    if tool == "netkat":
        process.wait_for("listening on")
    else:
        lab.await_listener(end, port, protocol)
    return process
