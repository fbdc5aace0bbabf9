// node server.mjs FD: members on socket.io, with its Redis adapter.
import { createServer } from "node:http";
import { createAdapter } from "@socket.io/redis-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";

const publisher = createClient({ url: process.env.BENCHMARKS_REDIS });
const subscriber = publisher.duplicate();
await Promise.all([publisher.connect(), subscriber.connect()]);

const server = createServer();
const io = new Server(server, {
  adapter: createAdapter(publisher, subscriber),
  transports: ["websocket"],
  perMessageDeflate: false,
});
io.on("connection", (socket) => {
  socket.join(`room:${socket.handshake.query.room}`);
  socket.emit("joined");
});
server.listen({ fd: Number(process.argv[2]) });
