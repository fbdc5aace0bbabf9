// Clients for Node that other people wrote, and the conversation that each has with a server: as clients.py, which see.
"use strict";
const crypto = require("node:crypto");
const fs = require("node:fs");

const LIMIT_MS = 15000;
const CLIENTS = {
  ws: (url, protocols, headers) => new (require("ws").WebSocket)(url, protocols, { headers }),
  undici: (url, protocols, headers) => new (require("undici").WebSocket)(url, { protocols, headers }),
  websocket: (url, protocols, headers) =>
    new (require("websocket").w3cwebsocket)(url, protocols, undefined, headers, undefined, {
      maxReceivedFrameSize: 1 << 24, maxReceivedMessageSize: 1 << 24, fragmentationThreshold: 1 << 16,
    }),
  "faye-websocket": (url, protocols, headers) =>
    new (require("faye-websocket").Client)(url, protocols, { headers, extensions: [require("permessage-deflate")] }),
};

class Client {
  // Events wait here until they are asked for.
  constructor(make, url, protocols = [], headers = {}) {
    this.events = [];
    this.wake = () => {};
    const put = event => { this.events.push(event); this.wake(); };
    this.socket = make(url, protocols, headers);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => put({ open: true });
    this.socket.onerror = () => {};  // a close follows
    this.socket.onmessage = event => put({ message: event.data });
    this.socket.onclose = event => put({ end: [event.code, event.reason || ""] });
  }

  async next() {
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error("waited in vain")), LIMIT_MS);
    });
    while (!this.events.length)
      await Promise.race([new Promise(resolve => { this.wake = resolve; }), late]);
    clearTimeout(timer);
    return this.events.shift();
  }

  async receive() {
    const event = await this.next();
    if (!("message" in event)) throw new Error(`no message: ${JSON.stringify(event)}`);
    const data = event.message;
    return typeof data === "string" ? data : Buffer.from(data);
  }

  async end() {
    const event = await this.next();
    if (!("end" in event)) throw new Error(`no end: ${String(JSON.stringify(event)).slice(0, 100)}`);
    return event.end;
  }
}

function conversation(make, base, plan) {
  const open = async (path, protocols, headers) => {
    const client = new Client(make, base + path, protocols, headers);
    const first = await client.next();
    if (!first.open) throw new Error(`not open: ${JSON.stringify(first)}`);
    return client;
  };
  const same = (a, b) => typeof a === typeof b && Buffer.from(a).equals(Buffer.from(b));
  return {
    open,
    async echoes() {
      const client = await open("/echo/");
      const heard = [];
      for (const message of [...plan.texts, ...plan.sizes.map(size => crypto.randomBytes(size))]) {
        client.socket.send(message);
        heard.push(same(await client.receive(), message));
      }
      client.socket.close(1000);
      await client.end();
      return heard;
    },
    async limit() {
      const client = await open("/echo/");
      client.socket.send(Buffer.alloc((1 << 20) + 1));
      return (await client.end())[0];
    },
    async subprotocol() {
      const client = await open("/subprotocol/", plan.subprotocols);
      return [client.socket.protocol, await client.receive()];
    },
    async header() {
      return (await open("/session/", [], { Cookie: plan.cookie })).receive();
    },
    async server_closes() {
      const ends = [];
      for (const path of plan.closes) {
        const client = await open(path);
        client.socket.send("go");
        ends.push(await client.end());
      }
      return ends;
    },
    async compression() {
      const client = await open("/victim/");
      client.socket.send("x".repeat(100000));
      const told = await client.receive();
      client.socket.close(3000, "bye");
      await client.end();
      return told;
    },
    async ping() {
      return (await open("/ponged/")).receive();
    },
    async refusal() {
      const client = new Client(make, base + "/refuse/forbidden/");
      return (await client.end())[0];
    },
    async pushes() {
      const client = await open(plan.push);
      return [await client.receive(), await client.receive(), await client.receive()];
    },
  };
}

const print = said => process.stdout.write(JSON.stringify(said) + "\n");

async function converse(make, base, plan) {
  const talk = conversation(make, base, plan);
  for (const name of plan.parts) {
    let said;
    try { said = await talk[name](); } catch (error) { said = error.stack; }
    print([name, said]);
  }
  process.exit(0);
}

async function wait(make, base, plan) {
  const client = await conversation(make, base, plan).open("/greet/");
  print(await client.receive());
  print(await client.end());
  process.exit(0);
}

const [name, what, url, plan] = process.argv.slice(2);
({ converse, wait })[what](CLIENTS[name], url, JSON.parse(fs.readFileSync(plan)));
