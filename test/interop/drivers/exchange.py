"""The exchange of records and commands with the runner; see dataset.go and driver.go beside this folder."""
import base64
import sys


def encode(b):
    return "-" if b is None else base64.b64encode(bytes(b)).decode()


def decode(s):
    return None if s == "-" else base64.b64decode(s)


def load(path):
    """Yields (partition, timestamp, key, value, headers) of each record to write."""
    with open(path) as f:
        for line in f:
            partition, _, timestamp, key, value, headers = line.rstrip("\n").split("\t")
            pairs = [pair.split(":") for pair in headers.split(",") if pair]
            yield (int(partition), int(timestamp), decode(key), decode(value),
                   [(decode(k).decode(), decode(v)) for k, v in pairs])


def save(path, records):
    """Writes records read: (partition, offset, timestamp, key, value, headers)."""
    with open(path, "w") as f:
        for partition, offset, timestamp, key, value, headers in records:
            pairs = ",".join(encode(k.encode()) + ":" + encode(v) for k, v in headers or [])
            f.write("\t".join([str(partition), str(offset), str(timestamp), encode(key), encode(value), pairs]) + "\n")


def serve(operations):
    """Obeys commands until the input ends. operations: name -> function(arguments)."""
    for line in sys.stdin:
        words = line.rstrip("\n").split("\t")
        args = dict(word.split("=", 1) for word in words[1:])
        try:
            operations[words[0]](args)
            answer = "ok"
        except Exception as e:  # the runner judges what the client says
            answer = "error %s: %s" % (type(e).__name__, str(e).replace("\n", " "))
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()


def wanted(args):
    """The partitions to read and their ends, without the empty ones."""
    return {p: int(end) for p, end in enumerate(args["ends"].split(",")) if int(end) > 0}
