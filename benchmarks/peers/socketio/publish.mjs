// node publish.mjs MESSAGE: emits it to the room that each line of standard input names, from outside of the server.
import { createInterface } from "node:readline";
import { Emitter } from "@socket.io/redis-emitter";
import { createClient } from "redis";

const [message] = process.argv.slice(2);
const client = createClient({ url: process.env.BENCHMARKS_REDIS });
await client.connect();
const emitter = new Emitter(client);

for await (const room of createInterface({ input: process.stdin })) {
  emitter.to(`room:${room}`).emit("message", message);
  await client.ping(); // emit() has no promise; Redis answers in order
  process.stdout.write(`${room}\n`);
}
process.exit();
