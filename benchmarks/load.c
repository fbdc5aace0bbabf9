/* The load client of the benchmarks: one thread, one epoll, and for each message a receive, a comparison and a send.
 *
 *   load echo  closed loop: every connection keeps --depth messages of --size bytes in flight
 *   load rate  open loop: --rate messages/s over all connections, at times fixed in advance; latency counts from them
 *   load idle  opens --connections, says READY, answers pings, until its standard input ends; at each line that it reads
 *              there, it sends one message on each connection in turn, and says ANSWERED when all of them are
 *   load churn connect, opening handshake, one echo, closing handshake, end of stream: --connections at a time
 *   load get   plain HTTP GET: --connections at a time, each request on a new one, or --keep-alive
 *   load fan   --connections members of --rooms, "{room}" in --path, count what is published: --depth messages under
 *              way, the next one when the last member of a room has its message; or --rate messages/s, at times fixed
 *              in advance, and the latency of each until its last member. --publisher is the descriptor to publish
 *              with, --publications a file with what is written there, for each room in turn: a line with the length,
 *              and the bytes. Members get --expected, after a message that begins with --greeting, if there is one;
 *              --engine-io: they speak that protocol, as much of it as is needed
 *   load recover  waits for a line on its standard input, then --connections connect at once, and each waits for
 *              --missed messages, which are --expected; the time is that until the last one has them
 *
 * --paths is a file with one line for each of --rooms: it takes the place of --path.
 *
 * --spin=N makes it N nanoseconds slower for each message: where that changes the result, it was the bottleneck.
 *
 * It says MEASURING when it is warm, MEASURED at the end of the time, and ends with one JSON object. What goes wrong is
 * counted in its "errors"; the first of them is told on standard error. RFC 6455 names what the variables hold.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

#define KEY "dGhlIHNhbXBsZSBub25jZQ==" /* the key of RFC 6455, 1.3, and its answer */
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

enum { TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };
enum { FIN = 0x80, MASK = 0x80, SMALL = 125 };
enum { SOURCES = 64, OPENING_AT_ONCE = 64, HEAD = 4096, BUFFER = 1 << 18, PUBLICATIONS = 1 << 16 };

typedef enum { UNUSED, CONNECTING, ASKING, OPEN, CLOSING, CLOSED_BY_PEER } State;

typedef struct {
    int fd;
    State state;
    bool blocked; /* waits for EPOLLOUT */

    char *head; /* of the HTTP response, and for GET its body; of a member, a frame that is not complete */
    size_t head_length;

    uint8_t header[10]; /* of the frame that arrives */
    size_t header_length;
    uint64_t payload_length, payload_left; /* both of it */
    uint8_t payload_first, payload_last;
    uint8_t control[SMALL]; /* its payload, if it is a control frame */

    const uint8_t *out; /* what is being sent */
    size_t out_left;
    unsigned due; /* messages that are to be sent */
    uint64_t sent, received; /* messages, in all */
    uint8_t pong[6 + SMALL];
    size_t pong_length;

    bool is_member; /* it has the greeting */
} Connection;

static struct {
    int port, connections, depth, rate, keep_alive, binary, spin, rooms, publisher, engine_io, missed;
    size_t size;
    double seconds, warmup, patience;
    const char *path, *paths, *publications, *expected, *greeting;
} options = {.connections = 1, .depth = 1, .size = 64, .seconds = 1, .warmup = 0.3, .patience = 15, .path = "/",
             .rooms = 1, .publisher = -1, .greeting = ""};

static struct {
    uint64_t connect, refused, wrong, closed, unanswered;
} errors;

typedef struct Mode Mode;
struct Mode {
    const char *name;
    bool http;                           /* plain HTTP, no WebSocket */
    bool reopens;                        /* a connection that ended is followed by another */
    void (*opened)(Connection *c);       /* after the 101 */
    void (*arrived)(Connection *c, const uint8_t *data, size_t length); /* what comes after it */
    void (*received)(Connection *c);     /* after each message */
    void (*ready)(void);                 /* when all are open */
    void (*begun)(void);                 /* when the time runs */
    void (*turn)(void);                  /* before each wait */
    uint64_t (*unanswered)(void);
};

static const Mode *mode;
static Connection *connections;
static struct sockaddr_in server;
static int epoll, timer = -1;
static uint8_t *messages, payload_first, payload_last;
static uint8_t space[HEAD + BUFFER], *const buffer = space + HEAD; /* in front of it: what a member has of a frame */
static size_t message_length;
static char request[1024];
static size_t request_length;
static int started, opening, open_now, awaited; /* awaited: members without their greeting */
static uint64_t done, pings, dialled; /* done: messages, cycles or requests, whatever the mode counts */
static uint64_t begin, measure_from, measure_until, last_progress;
static bool counting, progress; /* progress: since the last poll */
static uint32_t *latencies; /* microseconds */
static size_t latencies_length, latencies_size;

/* ---- small things ---- */

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t nanoseconds(double seconds) { return (uint64_t)(seconds * 1e9); }

static double cpu_seconds(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

__attribute__((format(printf, 2, 3))) static void count_error(uint64_t *counter, const char *format, ...) {
    static bool told;
    ++*counter;
    if (told) return;
    told = true;
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
}

static void *allocate(size_t count, size_t size) {
    void *memory = calloc(count, size);
    if (!memory) die("out of memory");
    return memory;
}

static bool is_measured(uint64_t time) { return measure_from <= time && time < measure_until; }

static void count_done(void) {
    progress = true;
    if (counting) done++;
}

/* ---- connections ---- */

static void watch(Connection *c, int operation, bool blocked) {
    struct epoll_event event = {.events = EPOLLIN | (blocked ? EPOLLOUT : 0), .data.ptr = c};
    if (epoll_ctl(epoll, operation, c->fd, &event) < 0) die("epoll_ctl: %s", strerror(errno));
    c->blocked = blocked;
}

static void hang_up(Connection *c) {
    if (c->state == CONNECTING || c->state == ASKING) opening--;
    if (c->state >= OPEN) open_now--;
    close(c->fd);
    c->state = UNUSED;
}

static void dial(Connection *c) {
    char *head = c->head ? c->head : allocate(1, HEAD + 1);
    *c = (Connection){.head = head, .state = CONNECTING};
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die("socket: %s", strerror(errno));
    int yes = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    /* Each source address has some 28,000 ports, and each of them waits for a minute after its connection. */
    struct sockaddr_in source = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000002 + dialled++ % SOURCES)};
    if (bind(c->fd, (struct sockaddr *)&source, sizeof source) < 0) die("bind: %s", strerror(errno));
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS)
        die("connect: %s", strerror(errno));
    opening++;
    watch(c, EPOLL_CTL_ADD, true);
}

static void end(Connection *c) {
    hang_up(c);
    if (mode->reopens) dial(c);
}

/* ---- what is sent ---- */

static size_t put_frame(uint8_t *out, int opcode, const uint8_t *payload, size_t length) {
    static const uint8_t masking_key[4] = {0x37, 0xfa, 0x21, 0x3d};
    size_t n = 0;
    out[n++] = FIN | opcode;
    int bytes = length <= SMALL ? 0 : length < 65536 ? 2 : 8;
    out[n++] = MASK | (bytes == 0 ? length : bytes == 2 ? 126 : 127);
    while (bytes--) out[n++] = (uint64_t)length >> 8 * bytes;
    memcpy(out + n, masking_key, 4);
    n += 4;
    for (size_t i = 0; i < length; i++) out[n + i] = payload[i] ^ masking_key[i % 4];
    return n + length;
}

static int message_opcode(void) { return options.binary ? BINARY : TEXT; }

/* All messages are the same, so that as many as are due can go out in one call. */
static void make_messages(void) {
    uint8_t *payload = allocate(options.size + 1, 1);
    for (size_t i = 0; i < options.size; i++) payload[i] = "abcdefghijklmnopqrstuvwxyz0123456789"[i % 36];
    payload_first = payload[0];
    payload_last = payload[options.size - 1];
    messages = allocate((size_t)options.depth, options.size + 14);
    for (int i = 0; i < options.depth; i++)
        message_length = put_frame(messages + i * message_length, message_opcode(), payload, options.size);
    free(payload);
}

static char **paths; /* one for each room, or none */

static void read_paths(void) {
    FILE *file = fopen(options.paths, "r");
    if (!file) die("--paths: %s", strerror(errno));
    paths = allocate((size_t)options.rooms, sizeof *paths);
    for (int room = 0; room < options.rooms; room++) {
        size_t size = 0;
        ssize_t length = getline(&paths[room], &size, file);
        if (length < 2) die("--paths: no room %d", room);
        paths[room][length - 1] = 0;
    }
    fclose(file);
}

static void make_request(int room) {
    const char *path = paths ? paths[room] : options.path;
    const char *place = strstr(path, "{room}"), *rest = place ? place + strlen("{room}") : "";
    char number[16] = "";
    if (place) snprintf(number, sizeof number, "%d", room);
    request_length = (size_t)snprintf(
        request, sizeof request,
        "GET %.*s%s%s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nOrigin: http://127.0.0.1:%d\r\n%s\r\n",
        (int)(place ? place - path : (long)strlen(path)), path, number, rest, options.port, options.port,
        !mode->http          ? "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: " KEY
                               "\r\nSec-WebSocket-Version: 13\r\n"
        : options.keep_alive ? "Connection: keep-alive\r\n"
                             : "Connection: close\r\n");
    if (request_length >= sizeof request) die("a path that is too long");
}

static void ask(Connection *c) {
    c->head_length = 0;
    if (options.rooms > 1) make_request((int)(c - connections) % options.rooms);
    if (send(c->fd, request, request_length, MSG_NOSIGNAL) != (ssize_t)request_length) {
        count_error(&errors.connect, "the request was not taken: %s", strerror(errno));
        end(c);
    }
}

static bool next_to_send(Connection *c) {
    if (c->pong_length) {
        c->out = c->pong;
        c->out_left = c->pong_length;
        c->pong_length = 0;
    } else if (c->due && c->state == OPEN) {
        unsigned count = c->due < (unsigned)options.depth ? c->due : (unsigned)options.depth;
        c->out = messages;
        c->out_left = count * message_length;
        c->due -= count;
        c->sent += count;
    }
    return c->out_left > 0;
}

static void flush(Connection *c) {
    while (c->out_left || next_to_send(c)) {
        ssize_t n = send(c->fd, c->out, c->out_left, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            if (!c->blocked) watch(c, EPOLL_CTL_MOD, true);
            return;
        }
        if (n < 0) {
            count_error(&errors.closed, "send: %s", strerror(errno));
            return end(c);
        }
        c->out += n;
        c->out_left -= (size_t)n;
    }
    if (c->blocked) watch(c, EPOLL_CTL_MOD, false);
}

/* ---- what arrives ---- */

static void receive_control(Connection *c) {
    int opcode = c->header[0] & 15;
    if (opcode == PING) {
        pings++;
        c->pong_length = put_frame(c->pong, PONG, c->control, c->payload_length);
    } else if (opcode == CLOSE && c->state == CLOSING) {
        c->state = CLOSED_BY_PEER; /* 7.1.1: the server closes the TCP connection */
    } else if (opcode == CLOSE) {
        count_error(&errors.closed, "the server closed with %d", c->control[0] << 8 | c->control[1]);
        end(c);
    }
}

static void spin(int nanoseconds) {
    for (uint64_t until = now() + (uint64_t)nanoseconds; now() < until;) continue;
}

static void receive_message(Connection *c) {
    if (options.spin) spin(options.spin);
    if (c->payload_first != payload_first || c->payload_last != payload_last)
        count_error(&errors.wrong, "a reply with another payload");
    if (c->received == c->sent) count_error(&errors.wrong, "a reply to nothing");
    c->received++;
    progress = true;
    mode->received(c);
}

static size_t header_size(const Connection *c) {
    int length = c->header_length < 2 ? 0 : c->header[1] & 127;
    return length <= SMALL ? 2 : length == 126 ? 4 : 10;
}

static bool is_expected(const Connection *c) {
    if (c->header[0] & 8) return c->payload_length <= SMALL;
    return c->header[0] == (FIN | message_opcode()) && c->payload_length == options.size;
}

static size_t receive_header(Connection *c, const uint8_t *data, size_t length) {
    size_t n = 0;
    while (n < length && c->header_length < header_size(c)) c->header[c->header_length++] = data[n++];
    if (c->header_length < header_size(c)) return n;
    c->payload_length = c->header[1] & 127;
    if (c->payload_length > SMALL) {
        c->payload_length = 0;
        for (size_t i = 2; i < c->header_length; i++) c->payload_length = c->payload_length << 8 | c->header[i];
    }
    c->payload_left = c->payload_length;
    if (!is_expected(c)) {
        count_error(&errors.wrong, "a frame that is no reply: %02x, %lu bytes", c->header[0],
                    (unsigned long)c->payload_length);
        end(c);
    }
    return n;
}

static size_t receive_payload(Connection *c, const uint8_t *data, size_t length) {
    if (length > c->payload_left) length = c->payload_left;
    uint64_t offset = c->payload_length - c->payload_left;
    if (c->header[0] & 8) memcpy(c->control + offset, data, length);
    if (length && offset == 0) c->payload_first = data[0];
    if (length) c->payload_last = data[length - 1];
    c->payload_left -= length;
    if (c->payload_left) return length;
    c->header_length = 0;
    (c->header[0] & 8 ? receive_control : receive_message)(c);
    return length;
}

static void receive_frames(Connection *c, const uint8_t *data, size_t length) {
    while (length && (c->state == OPEN || c->state == CLOSING)) {
        bool in_header = c->header_length < header_size(c);
        size_t n = (in_header ? receive_header : receive_payload)(c, data, length);
        data += n;
        length -= n;
        /* A header that is complete with the last byte of the data, of a frame without payload. */
        if (in_header && c->state >= OPEN && c->header_length == header_size(c) && !c->payload_length)
            receive_payload(c, data, 0);
    }
    if (c->state == OPEN || c->state == CLOSING) flush(c);
}

/* Returns how many of the bytes belong to the head, or 0 while it is not complete. */
static size_t receive_head(Connection *c, const uint8_t *data, size_t length) {
    size_t before = c->head_length, room = HEAD - before;
    size_t n = length < room ? length : room;
    memcpy(c->head + before, data, n);
    c->head_length += n;
    c->head[c->head_length] = 0;
    char *blank = strstr(c->head, "\r\n\r\n");
    if (!blank && c->head_length == HEAD) die("a head of more than %d bytes", HEAD);
    return blank ? (size_t)(blank + 4 - c->head) - before : 0;
}

static bool is_answer(const Connection *c, const char *status, const char *word) {
    return !strncmp(c->head, "HTTP/1.1 ", 9) && !strncmp(c->head + 9, status, 3) && strstr(c->head, word);
}

static void receive_handshake(Connection *c, const uint8_t *data, size_t length) {
    size_t used = receive_head(c, data, length);
    if (!used) return;
    if (!is_answer(c, "101", ACCEPT)) {
        count_error(&errors.refused, "refused: %.200s", c->head);
        return end(c);
    }
    opening--;
    open_now++;
    c->state = OPEN;
    progress = true;
    if (!mode->reopens) {
        free(c->head);
        c->head = NULL;
    }
    mode->opened(c);
    mode->arrived(c, data + used, length - used);
}

static void receive_response(Connection *c, const uint8_t *data, size_t length) {
    receive_head(c, data, length);
    const char *blank = strstr(c->head, "\r\n\r\n"), *field = strcasestr(c->head, "\r\nContent-Length:");
    if (!blank || !field || field > blank) return;
    if (strlen(blank + 4) < strtoul(field + 17, NULL, 10)) return;
    if (!is_answer(c, "200", "")) count_error(&errors.refused, "refused: %.200s", c->head);
    if (options.keep_alive) {
        count_done();
        return ask(c);
    }
    c->state = CLOSED_BY_PEER;
    opening--;
    open_now++;
}

static void receive_end(Connection *c, ssize_t n) {
    if (n == 0 && c->state == CLOSED_BY_PEER) count_done();
    else count_error(&errors.closed, "the connection ended too early: %s", n ? strerror(errno) : "end of stream");
    end(c);
}

/* Of a long payload only the first and the last byte are looked at: the kernel need not copy those between. */
static bool is_in_long_payload(const Connection *c) {
    return c->payload_left < c->payload_length && c->payload_left > 1 && c->payload_length > (size_t)BUFFER;
}

static void receive(Connection *c) {
    bool dropped = is_in_long_payload(c);
    ssize_t n = dropped ? recv(c->fd, NULL, c->payload_left - 1, MSG_TRUNC) : recv(c->fd, buffer, (size_t)BUFFER, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) receive_end(c, n);
    else if (dropped) c->payload_left -= (uint64_t)n;
    else if (c->state == ASKING) (mode->http ? receive_response : receive_handshake)(c, buffer, (size_t)n);
    else mode->arrived(c, buffer, (size_t)n);
}

static void connected(Connection *c) {
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error) {
        count_error(&errors.connect, "connect: %s", strerror(error));
        return end(c);
    }
    c->state = ASKING;
    watch(c, EPOLL_CTL_MOD, false);
    ask(c);
}

static void handle(Connection *c, uint32_t events) {
    if (c->state == UNUSED) return;
    if (c->state == CONNECTING) return connected(c);
    if (events & EPOLLOUT) flush(c);
    if (c->state != UNUSED && c->state != CONNECTING && events & ~(uint32_t)EPOLLOUT) receive(c);
}

/* ---- the modes ---- */

static void nothing(Connection *c) { (void)c; }

static void no_turn(void) {}

static void echo_begin(void) {
    for (int i = 0; i < options.connections; i++) {
        if (connections[i].state != OPEN) continue;
        connections[i].due = (unsigned)options.depth;
        flush(&connections[i]);
    }
}

static void echo_received(Connection *c) {
    count_done();
    c->due++;
}

/* Message j of connection i, of n, is number j * n + i of all. */
static uint64_t intended(uint64_t number) { return begin + number * 1000000000u / (uint64_t)options.rate; }

static void set_timer(uint64_t time) {
    struct itimerspec at = {0};
    at.it_value.tv_sec = (time_t)(time / 1000000000u);
    at.it_value.tv_nsec = (long)(time % 1000000000u);
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
}

static void rate_begin(void) {
    latencies_size = (size_t)(options.rate * (options.seconds + 1));
    latencies = allocate(latencies_size, sizeof *latencies);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (timer < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event) < 0) die("timerfd: %s", strerror(errno));
}

static void rate_send_due(void) {
    static uint64_t number;
    while (intended(number) <= now() && intended(number) < measure_until) {
        Connection *c = &connections[number++ % (uint64_t)options.connections];
        if (c->state != OPEN) continue;
        c->due++;
        if (!c->blocked) flush(c);
    }
    set_timer(intended(number));
}

static bool count_latency(uint64_t time) {
    if (!is_measured(time) || latencies_length == latencies_size) return false;
    latencies[latencies_length++] = (uint32_t)((now() - time) / 1000);
    return true;
}

static void rate_received(Connection *c) {
    uint64_t index = (uint64_t)(c - connections), count = (uint64_t)options.connections;
    done += count_latency(intended((c->received - 1) * count + index));
}

static uint64_t unanswered_messages(void) {
    uint64_t n = 0;
    for (Connection *c = connections; c < connections + options.connections; c++) n += c->sent - c->received + c->due;
    return n;
}

static void churn_opened(Connection *c) { c->due = 1; }

static void churn_received(Connection *c) {
    static const uint8_t normal_closure[2] = {1000 >> 8, 1000 & 255};
    c->pong_length = put_frame(c->pong, CLOSE, normal_closure, 2);
    c->state = CLOSING;
}

static void poll_once(int milliseconds);

/* ---- fan-out: message n is for room n % rooms, whose members have it as their message n / rooms ---- */

static struct {
    uint64_t published; /* when, or in an open loop when it should have been */
    int missing;        /* members that do not have it yet */
} publications[PUBLICATIONS]; /* message n is at n % PUBLICATIONS */
static uint64_t published, complete;
static struct {
    char *bytes;
    size_t length;
} *to_publish;
static uint8_t expected_frame[HEAD];
static size_t expected_length;
static char *unsent; /* publications that leave in one call */
static size_t unsent_size;

static int members_of(uint64_t number) {
    int room = (int)(number % (uint64_t)options.rooms);
    return options.connections / options.rooms + (room < options.connections % options.rooms);
}

static void read_publications(void) {
    FILE *file = fopen(options.publications ? options.publications : "", "r");
    if (!file) die("--publications: %s", strerror(errno));
    to_publish = allocate((size_t)options.rooms, sizeof *to_publish);
    for (int room = 0; room < options.rooms; room++) {
        size_t length;
        if (fscanf(file, "%zu", &length) != 1 || fgetc(file) != '\n') die("--publications: no room %d", room);
        to_publish[room].bytes = allocate(length, 1);
        to_publish[room].length = length;
        if (fread(to_publish[room].bytes, 1, length, file) != length) die("--publications: room %d is short", room);
        if (length * (size_t)options.depth > unsent_size) unsent_size = length * (size_t)options.depth;
    }
    unsent = allocate(unsent_size, 1);
    fclose(file);
}

static void make_expected(void) {
    size_t length = strlen(options.expected);
    expected_frame[0] = FIN | TEXT;
    expected_length = length <= SMALL ? 2 : 4;
    expected_frame[1] = (uint8_t)(length <= SMALL ? length : 126);
    if (length > SMALL) {
        expected_frame[2] = (uint8_t)(length >> 8);
        expected_frame[3] = (uint8_t)length;
    }
    memcpy(expected_frame + expected_length, options.expected, length);
    expected_length += length;
}

/* Some servers greet a member before Redis has confirmed its subscription: what is published at once would be lost. */
static void fan_settle(void) {
    for (uint64_t until = now() + nanoseconds(0.3); now() < until;) poll_once(10);
}

static void fan_begin(void) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = publications};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, options.publisher, &event) < 0) die("--publisher: %s", strerror(errno));
    if (options.rate) rate_begin();
}

/* What the broker, or the publisher, answers: only whether it is an error. */
static void receive_confirmation(void) {
    char answer[HEAD];
    ssize_t n = recv(options.publisher, answer, sizeof answer - 1, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) die("the publisher is gone");
    answer[n] = 0;
    if (answer[0] == '-' || strstr(answer, "\n-") || strstr(answer, "HTTP/1.1 4") || strstr(answer, "HTTP/1.1 5"))
        count_error(&errors.refused, "not published: %.200s", answer);
}

static void send_unsent(size_t length) {
    for (size_t sent = 0; sent < length;) {
        ssize_t n = send(options.publisher, unsent + sent, length - sent, MSG_NOSIGNAL);
        if (n < 0) die("the publisher: %s", strerror(errno));
        sent += (size_t)n;
    }
}

static bool is_due(uint64_t time) {
    if (options.rate) return intended(published) <= time && time < measure_until;
    return published - complete < (uint64_t)options.depth && time < measure_until;
}

static void publish_due(void) {
    size_t length = 0;
    for (uint64_t time = now(); is_due(time);) {
        int room = (int)(published % (uint64_t)options.rooms), missing = members_of(published);
        if (publications[published % PUBLICATIONS].missing) die("%d messages later, one has not arrived", PUBLICATIONS);
        publications[published % PUBLICATIONS].missing = missing;
        publications[published % PUBLICATIONS].published = options.rate ? intended(published) : time;
        if (length + to_publish[room].length > unsent_size) send_unsent(length), length = 0;
        memcpy(unsent + length, to_publish[room].bytes, to_publish[room].length);
        length += to_publish[room].length;
        published++;
    }
    send_unsent(length);
    if (options.rate) set_timer(intended(published));
}

static uint64_t under_way(void) { return published - complete; }

static void member_received(Connection *c) {
    if (options.spin) spin(options.spin);
    uint64_t room = (uint64_t)(c - connections) % (uint64_t)options.rooms;
    uint64_t number = c->received++ * (uint64_t)options.rooms + room;
    if (number >= published) return count_error(&errors.wrong, "a message that was not published");
    progress = true;
    done += counting;
    if (--publications[number % PUBLICATIONS].missing) return;
    complete++;
    if (options.rate && count_latency(publications[number % PUBLICATIONS].published))
        done += (uint64_t)members_of(number);
}

static void say(Connection *c, const char *text) {
    c->pong_length = put_frame(c->pong, TEXT, (const uint8_t *)text, strlen(text));
}

static bool is_text(const uint8_t *payload, size_t length, const char *text) {
    return length == strlen(text) && !memcmp(payload, text, length);
}

static bool begins_with(const uint8_t *payload, size_t length, const char *text) {
    return length >= strlen(text) && !memcmp(payload, text, strlen(text));
}

static void become_member(Connection *c) {
    c->is_member = true;
    awaited--;
    progress = true;
}

/* Of Engine.IO: 0 opens, and 40 enters the namespace; 2 is a ping, and 3 its answer. */
static bool receive_engine_io(Connection *c, const uint8_t *payload, size_t length) {
    if (!options.engine_io || !length) return false;
    if (payload[0] == '0') say(c, "40");
    else if (is_text(payload, length, "2")) say(c, "3");
    else return length > 1 && payload[0] == '4' && payload[1] == '0';
    return true;
}

static void receive_other(Connection *c, int first, const uint8_t *payload, size_t length) {
    bool is_text_message = first == (FIN | TEXT);
    if (first & 8 && length <= SMALL) {
        c->header[0] = (uint8_t)first;
        c->payload_length = length;
        memcpy(c->control, payload, length);
        receive_control(c);
    } else if (is_text_message && !c->is_member && begins_with(payload, length, options.greeting)) {
        become_member(c);
    } else if (!is_text_message || !receive_engine_io(c, payload, length)) {
        count_error(&errors.wrong, "not what was published: %02x, %.*s", first, (int)length, payload);
        end(c);
    }
}

/* The length of the frame that the data begins with, or 0 while it is not complete. */
static size_t receive_frame(Connection *c, const uint8_t *data, size_t length) {
    if (c->is_member && length >= expected_length && !memcmp(data, expected_frame, expected_length)) {
        mode->received(c);
        return expected_length;
    }
    if (length < 4 && (length < 2 || data[1] > SMALL)) return 0;
    size_t header = data[1] > SMALL ? 4 : 2, payload = data[1] > SMALL ? (size_t)(data[2] << 8 | data[3]) : data[1];
    if (data[1] > 126 || header + payload > HEAD) {
        count_error(&errors.wrong, "a frame that is too long, or masked");
        end(c);
    }
    if (c->state != OPEN || length < header + payload) return 0;
    receive_other(c, data[0], data + header, payload);
    return header + payload;
}

static void member_arrived(Connection *c, const uint8_t *data, size_t length) {
    if (c->head_length) {
        data -= c->head_length; /* `space` has room for it */
        length += c->head_length;
        memcpy((uint8_t *)data, c->head, c->head_length);
        c->head_length = 0;
    }
    for (size_t n; c->state == OPEN && length && (n = receive_frame(c, data, length)); length -= n) data += n;
    if (c->state != OPEN) return;
    if (length) {
        if (!c->head) c->head = allocate(1, HEAD + 1);
        memcpy(c->head, data, length);
        c->head_length = length;
    }
    if (c->pong_length) flush(c);
}

static void member_opened(Connection *c) {
    c->head_length = 0;
    awaited++;
    if (!*options.greeting) become_member(c);
}

/* ---- recover ---- */

static void recover_opened(Connection *c) {
    c->head_length = 0;
    c->is_member = true; /* without a greeting: what it has missed comes first */
}

static void recover_received(Connection *c) {
    if (c->received++ == (uint64_t)options.missed) count_error(&errors.wrong, "more than it has missed");
    progress = true;
    if (c->received != (uint64_t)options.missed) return;
    done++;
    latencies[latencies_length++] = (uint32_t)((now() - begin) / 1000);
}

#define ECHOES .arrived = receive_frames, .unanswered = unanswered_messages, .ready = no_turn

static const Mode MODES[] = {
    {.name = "echo", ECHOES, .opened = nothing, .received = echo_received, .begun = echo_begin, .turn = no_turn},
    {.name = "rate", ECHOES, .opened = nothing, .received = rate_received, .begun = rate_begin, .turn = rate_send_due},
    {.name = "idle", ECHOES, .opened = nothing, .received = nothing, .begun = no_turn, .turn = no_turn},
    {.name = "churn", ECHOES, .reopens = true, .opened = churn_opened, .received = churn_received, .begun = no_turn,
     .turn = no_turn},
    {.name = "get", ECHOES, .http = true, .reopens = true, .opened = nothing, .received = nothing, .begun = no_turn,
     .turn = no_turn},
    {.name = "fan", .arrived = member_arrived, .unanswered = under_way, .opened = member_opened,
     .received = member_received, .ready = fan_settle, .begun = fan_begin, .turn = publish_due},
    {.name = "recover", .arrived = member_arrived, .opened = recover_opened, .received = recover_received},
};

/* ---- the loop ---- */

static void poll_once(int milliseconds) {
    progress = false;
    struct epoll_event events[512];
    int n = epoll_wait(epoll, events, 512, milliseconds);
    if (n < 0 && errno != EINTR) die("epoll_wait: %s", strerror(errno));
    for (int i = 0; i < n; i++) {
        if (events[i].data.ptr == publications) receive_confirmation();
        else if (events[i].data.ptr) handle(events[i].data.ptr, events[i].events);
    }
    if (progress) last_progress = now();
    else if (now() - last_progress > nanoseconds(options.patience))
        die("no answer for %.0f s: %d of %d open, %d of them wait to be members; %lu published, %lu of them complete",
            options.patience, open_now, options.connections, awaited, (unsigned long)published, (unsigned long)complete);
}

static void open_all(void) {
    last_progress = now();
    while (started < options.connections || (opening + awaited && !mode->reopens)) {
        while (started < options.connections && opening + awaited < OPENING_AT_ONCE) dial(&connections[started++]);
        poll_once(100);
    }
    if (!mode->reopens && open_now < options.connections)
        die("only %d of %d connections are open", open_now, options.connections);
}

/* One after the other: what all of them need at the same moment would stay in the server's memory. */
static void talk(void) {
    last_progress = now();
    for (Connection *c = connections; c < connections + options.connections; c++) {
        c->due++;
        flush(c);
        while (c->state == OPEN && c->received < c->sent) poll_once(100);
    }
    puts("ANSWERED");
    fflush(stdout);
}

static void idle_until_told(void) {
    char line[16];
    puts("READY");
    fflush(stdout);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, happened;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event) < 0) die("standard input is no pipe");
    for (;;) {
        if (epoll_wait(epoll, &happened, 1, -1) < 0 && errno != EINTR) die("epoll_wait: %s", strerror(errno));
        if (happened.data.ptr) handle(happened.data.ptr, happened.events);
        else if (!fgets(line, sizeof line, stdin)) return;
        else talk();
    }
}

static void run_until(uint64_t time) {
    uint64_t t;
    while ((t = now()) < time) {
        mode->turn();
        poll_once((int)((time - t) / 1000000u) + 1);
    }
}

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double percentile(double part) {
    return latencies_length ? latencies[(size_t)(part * (double)(latencies_length - 1))] : 0;
}

static uint64_t all_errors(void) {
    return errors.connect + errors.refused + errors.wrong + errors.closed + errors.unanswered;
}

static void print_result(double seconds, double cpu) {
    printf("{\"mode\": \"%s\", \"connections\": %d, \"seconds\": %.6f, \"client_cpu_seconds\": %.6f, ", mode->name,
           options.connections, seconds, cpu);
    printf("\"done\": %lu, \"pings\": %lu, ", (unsigned long)done, (unsigned long)pings);
    if (latencies) {
        qsort(latencies, latencies_length, sizeof *latencies, by_size);
        printf("\"p50_us\": %.0f, \"p99_us\": %.0f, \"p999_us\": %.0f, \"max_us\": %.0f, ", percentile(.5),
               percentile(.99), percentile(.999), percentile(1));
    }
    printf("\"errors\": {\"connect\": %lu, \"refused\": %lu, \"wrong\": %lu, \"closed\": %lu, \"unanswered\": %lu}}\n",
           (unsigned long)errors.connect, (unsigned long)errors.refused, (unsigned long)errors.wrong,
           (unsigned long)errors.closed, (unsigned long)errors.unanswered);
    fflush(stdout);
}

static void measure(void) {
    mode->ready();
    begin = now();
    measure_from = begin + nanoseconds(options.warmup);
    measure_until = measure_from + nanoseconds(options.seconds);
    mode->begun();
    run_until(measure_from);
    puts("MEASURING");
    fflush(stdout);
    double cpu = cpu_seconds();
    uint64_t from = now();
    counting = timer < 0; /* rate counts by intended times */
    run_until(measure_until);
    counting = false;
    double seconds = (double)(now() - from) / 1e9;
    cpu = cpu_seconds() - cpu;
    puts("MEASURED");
    fflush(stdout);
    bool is_waiting = timer >= 0 || options.expected; /* nothing that was published may be lost */
    for (uint64_t patience = now() + nanoseconds(5); is_waiting && mode->unanswered() && now() < patience;)
        poll_once(100);
    if (is_waiting && mode->unanswered()) count_error(&errors.unanswered, "messages without an answer");
    if (!done) count_error(&errors.unanswered, "nothing was answered");
    print_result(seconds, cpu);
}

static void recover(void) {
    char line[16];
    latencies = allocate((size_t)options.connections, sizeof *latencies);
    puts("MEASURING");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) die("nothing says when to begin");
    double cpu = cpu_seconds();
    last_progress = begin = now();
    while (started < options.connections) dial(&connections[started++]);
    while (done < (uint64_t)options.connections && !all_errors()) poll_once(100);
    double seconds = (double)(now() - begin) / 1e9;
    cpu = cpu_seconds() - cpu;
    puts("MEASURED");
    fflush(stdout);
    print_result(seconds, cpu);
}

static void read_options(int argc, char **argv) {
    static const struct option names[] = {
        {"port", 1, 0, 'p'},    {"path", 1, 0, 'u'},     {"connections", 1, 0, 'c'}, {"size", 1, 0, 's'},
        {"depth", 1, 0, 'd'},   {"rate", 1, 0, 'r'},     {"seconds", 1, 0, 't'},     {"warmup", 1, 0, 'w'},
        {"binary", 0, 0, 'b'},  {"keep-alive", 0, 0, 'k'}, {"patience", 1, 0, 'a'},
        {"spin", 1, 0, 'n'},    {"rooms", 1, 0, 'o'},    {"publisher", 1, 0, 'l'},   {"publications", 1, 0, 'f'},
        {"expected", 1, 0, 'e'}, {"greeting", 1, 0, 'g'}, {"engine-io", 0, 0, 'i'},   {"paths", 1, 0, 'q'},
        {"missed", 1, 0, 'm'},  {0, 0, 0, 0},
    };
    for (int option; (option = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (option) {
        case 'p': options.port = atoi(optarg); break;
        case 'u': options.path = optarg; break;
        case 'c': options.connections = atoi(optarg); break;
        case 's': options.size = strtoul(optarg, NULL, 10); break;
        case 'd': options.depth = atoi(optarg); break;
        case 'r': options.rate = atoi(optarg); break;
        case 't': options.seconds = atof(optarg); break;
        case 'w': options.warmup = atof(optarg); break;
        case 'a': options.patience = atof(optarg); break;
        case 'b': options.binary = 1; break;
        case 'k': options.keep_alive = 1; break;
        case 'n': options.spin = atoi(optarg); break;
        case 'o': options.rooms = atoi(optarg); break;
        case 'l': options.publisher = atoi(optarg); break;
        case 'f': options.publications = optarg; break;
        case 'e': options.expected = optarg; break;
        case 'g': options.greeting = optarg; break;
        case 'i': options.engine_io = 1; break;
        case 'q': options.paths = optarg; break;
        case 'm': options.missed = atoi(optarg); break;
        default: exit(2);
        }
    }
    for (size_t i = 0; optind < argc && i < sizeof MODES / sizeof *MODES; i++)
        if (!strcmp(argv[optind], MODES[i].name)) mode = &MODES[i];
    if (!mode || !options.port || !options.size || options.connections < 1 || options.depth < 1)
        die("usage: load MODE --port=PORT ..., see the top of load.c");
    if (!strcmp(mode->name, "rate") && options.rate < 1) die("--rate is missing");
    bool is_fan = !strcmp(mode->name, "fan"), is_recover = !strcmp(mode->name, "recover");
    if (is_fan && options.publisher < 0) die("--publisher is missing");
    if ((is_fan || is_recover) && (!options.expected || strlen(options.expected) > HEAD / 2))
        die("--expected is missing, or too long");
    if (is_recover && options.missed < 1) die("--missed is missing");
    if ((is_fan || is_recover) && (options.rooms < 1 || options.rooms > options.connections))
        die("there are rooms without members");
    if (mode->reopens && options.connections > OPENING_AT_ONCE) die("not more than %d at a time", OPENING_AT_ONCE);
}

int main(int argc, char **argv) {
    read_options(argc, argv);
    server = (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((uint16_t)options.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    connections = allocate((size_t)options.connections, sizeof *connections);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    make_messages();
    if (options.paths) read_paths();
    make_request(0);
    if (options.expected) make_expected();
    if (options.publisher >= 0) read_publications();
    if (!strcmp(mode->name, "recover")) {
        recover();
        return all_errors() ? 1 : 0;
    }
    open_all();
    if (!strcmp(mode->name, "idle")) {
        idle_until_told();
        print_result(0, cpu_seconds());
    } else {
        measure();
    }
    return all_errors() ? 1 : 0;
}
