/* The upstream that benchmarks measure against: an OpenAI-compatible server that costs next to nothing.
 *
 * One thread, epoll, HTTP/1.1 keep-alive, loopback only. Compiled and started by tests/bench/upstream.py:
 *     cc -O2 -o upstream upstream.c && ./upstream PORT
 *
 * Paths    anything ending in /chat/completions    a chat answer, as JSON, or as SSE when "stream": true
 *          anything ending in /models              a list of one model
 * Control  GET /_set?key=value&...                 what is not named goes back to its default
 *          GET /_stats                             {"requests", "streams", "aborted", "inflight", "peak"}
 *          GET /_zero                              zero the counters
 * Keys     lat (ms before the first byte), size (characters of content), chunks (content events), gap (ms between them)
 *
 * Each content event of a stream carries the CLOCK_MONOTONIC time it was sent at in microseconds, so that a client on the
 * same machine can measure the delay of every one.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    double lat, gap;
    int size, chunks;
    long n, nstream, aborted, inflight, peak;
} Settings;

typedef struct { char *p; size_t len, cap; } Buf;

enum { IDLE, WAIT_JSON, WAIT_STREAM, STREAMING };

typedef struct Conn {
    int fd, state, usage, sent, dead;
    int armed;                          /* waiting for EPOLLOUT */
    int parsing;                        /* inside on_input: do not enter it again */
    uint64_t gen;                       /* changes whenever pending timers become stale */
    Buf in, out;
    char model[96];
    struct Conn *next_dead;
} Conn;

typedef struct { int64_t at; Conn *c; uint64_t gen; } Timer;

static Settings now;
static Timer *heap;
static size_t nheap, capheap;
static int ep;
static Conn *graveyard;                 /* freed only when no timer can point at it */
static int64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* ---- buffers ---- */
static void put(Buf *b, const char *s, size_t n) {
    if (b->len + n > b->cap) {
        b->cap = (b->len + n) * 2 + 512;
        b->p = realloc(b->p, b->cap);
        if (!b->p) abort();
    }
    memcpy(b->p + b->len, s, n);
    b->len += n;
}

static void putf(Buf *b, const char *fmt, ...) {
    char tmp[2048];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(tmp, sizeof tmp, fmt, ap);
    va_end(ap);
    put(b, tmp, n < (int)sizeof tmp ? (size_t)n : sizeof tmp - 1);
}

/* ---- settings ---- */
static void set_keys(char *q) {
    now.lat = now.gap = 0;
    now.size = 300;
    now.chunks = 32;
    for (char *kv = strtok(q, "&"); kv; kv = strtok(NULL, "&")) {
        char *eq = strchr(kv, '=');
        if (!eq) continue;
        *eq = 0;
        double v = atof(eq + 1);
        if (!strcmp(kv, "lat")) now.lat = v; else if (!strcmp(kv, "gap")) now.gap = v;
        else if (!strcmp(kv, "size")) now.size = (int)v; else if (!strcmp(kv, "chunks")) now.chunks = (int)v;
    }
}

/* ---- timers: a binary heap, stale entries are skipped ---- */
static void timer_add(Conn *c, int64_t at) {
    if (nheap == capheap) {
        capheap = capheap ? capheap * 2 : 1024;
        heap = realloc(heap, capheap * sizeof *heap);
        if (!heap) abort();
    }
    size_t i = nheap++;
    while (i && heap[(i - 1) / 2].at > at) { heap[i] = heap[(i - 1) / 2]; i = (i - 1) / 2; }
    heap[i] = (Timer){at, c, c->gen};
}

static Timer timer_pop(void) {
    Timer top = heap[0], last = heap[--nheap];
    size_t i = 0;
    for (;;) {
        size_t k = 2 * i + 1;
        if (k >= nheap) break;
        if (k + 1 < nheap && heap[k + 1].at < heap[k].at) k++;
        if (heap[k].at >= last.at) break;
        heap[i] = heap[k];
        i = k;
    }
    heap[i] = last;
    return top;
}

/* ---- connections ---- */
static void finish(Conn *c) {           /* the current request is over, however it went */
    if (c->state != IDLE) { now.inflight--; c->state = IDLE; }
    c->gen++;
}

static void drop(Conn *c) {
    if (c->dead) return;
    if (c->state != IDLE) now.aborted++;
    finish(c);
    close(c->fd);
    free(c->in.p);
    free(c->out.p);
    c->in = c->out = (Buf){0};
    c->dead = 1;
    c->next_dead = graveyard;
    graveyard = c;
}

static int flush(Conn *c) {             /* 0 when the connection is gone */
    while (c->out.len) {
        ssize_t n = send(c->fd, c->out.p, c->out.len, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN) break;
            drop(c);
            return 0;
        }
        memmove(c->out.p, c->out.p + n, c->out.len - n);
        c->out.len -= n;
    }
    int want = c->out.len > 0;
    if (want != c->armed) {
        struct epoll_event e = {EPOLLIN | EPOLLRDHUP | (want ? EPOLLOUT : 0), {.ptr = c}};
        epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
        c->armed = want;
    }
    return 1;
}

static void reply(Conn *c, int status, const char *body, size_t n) {
    putf(&c->out, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\nx-request-id: req_mock\r\n\r\n",
         status, status == 200 ? "OK" : "Not Found", n);
    put(&c->out, body, n);
}

static void reply_chat(Conn *c) {
    static char text[65536];
    static Buf b;
    int size = now.size;
    if (!text[0]) for (size_t i = 0; i < sizeof text; i++) text[i] = i % 6 == 5 ? ' ' : 'a' + i % 26;
    if (size > (int)sizeof text) size = sizeof text;
    b.len = 0;
    putf(&b, "{\"id\":\"chatcmpl-mock0123456789\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"%s\","
         "\"system_fingerprint\":\"fp_mock\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"", c->model);
    put(&b, text, size);
    putf(&b, "\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":24,"
         "\"completion_tokens\":%d,\"total_tokens\":%d,\"prompt_tokens_details\":{\"cached_tokens\":0},"
         "\"completion_tokens_details\":{\"reasoning_tokens\":0}}}", size / 4, 24 + size / 4);
    reply(c, 200, b.p, b.len);
}

static void sse(Conn *c, const char *choices, const char *usage) {
    char ev[1024];
    int n = snprintf(ev, sizeof ev, "data: {\"id\":\"chatcmpl-mock0123456789\",\"object\":\"chat.completion.chunk\","
                     "\"created\":1700000000,\"model\":\"%s\",\"system_fingerprint\":\"fp_mock\",\"choices\":[%s]%s}\n\n",
                     c->model, choices, usage);
    putf(&c->out, "%x\r\n", n);
    put(&c->out, ev, n);
    put(&c->out, "\r\n", 2);
}

static void on_input(Conn *c);

static void stream_step(Conn *c) {      /* send every event that is due, then arm the next timer */
    char ch[160];
    for (;;) {
        if (c->sent == 0) {
            putf(&c->out, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
                 "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\nx-request-id: req_mock\r\n\r\n");
            sse(c, "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":null}",
                c->usage ? ",\"usage\":null" : "");
        }
        if (c->sent < now.chunks) {
            snprintf(ch, sizeof ch, "{\"index\":0,\"delta\":{\"content\":\"t=%016lld \"},\"logprobs\":null,\"finish_reason\":null}",
                     (long long)now_us());
            sse(c, ch, c->usage ? ",\"usage\":null" : "");
            c->sent++;
        }
        int last = c->sent >= now.chunks;
        if (last) {
            sse(c, "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}", c->usage ? ",\"usage\":null" : "");
            if (c->usage) {
                snprintf(ch, sizeof ch, ",\"usage\":{\"prompt_tokens\":24,\"completion_tokens\":%d,\"total_tokens\":%d}",
                         now.chunks, 24 + now.chunks);
                sse(c, "", ch);
            }
            put(&c->out, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n", 24);
            finish(c);
        }
        if (!flush(c)) return;
        if (last) { on_input(c); return; }
        if (now.gap > 0) { timer_add(c, now_us() + (int64_t)(now.gap * 1000)); return; }
        if (c->out.len > 65536) { timer_add(c, now_us() + 1000); return; }   /* slow reader */
    }
}

static void answer(Conn *c) {           /* the latency has passed */
    if (c->state == WAIT_STREAM) { c->state = STREAMING; c->sent = 0; stream_step(c); return; }
    if (c->state == STREAMING) { stream_step(c); return; }
    reply_chat(c);
    finish(c);
    if (flush(c)) on_input(c);
}

/* ---- requests ---- */
static int flag(const char *body, size_t n, const char *key) {     /* "key": true */
    const char *s = memmem(body, n, key, strlen(key)), *end = body + n;
    if (!s) return 0;
    for (s += strlen(key); s < end && (isspace((unsigned char)*s) || *s == ':'); s++);
    return s + 4 <= end && !memcmp(s, "true", 4);
}

static void control(Conn *c, char *path) {
    Buf b = {0};
    if (!strncmp(path, "/_set", 5)) {
        char *q = strchr(path, '?'), none[1] = "";
        set_keys(q ? q + 1 : none);
        putf(&b, "{\"ok\":true}");
    } else if (!strcmp(path, "/_zero")) {
        now.n = now.nstream = now.aborted = 0;
        now.peak = now.inflight;
        putf(&b, "{\"ok\":true}");
    } else {
        putf(&b, "{\"requests\":%ld,\"streams\":%ld,\"aborted\":%ld,\"inflight\":%ld,\"peak\":%ld}", now.n, now.nstream,
             now.aborted, now.inflight, now.peak);
    }
    reply(c, 200, b.p, b.len);
    free(b.p);
}

static int ends(const char *s, const char *with) {
    size_t n = strlen(s), k = strlen(with);
    return n >= k && !strcmp(s + n - k, with);
}

static void request(Conn *c, char *path, const char *body, size_t n) {
    if (path[0] == '/' && path[1] == '_') { control(c, path); flush(c); return; }
    char *q = strchr(path, '?');
    if (q) *q = 0;
    if (!ends(path, "/chat/completions")) {
        static const char models[] = "{\"object\":\"list\",\"data\":[{\"id\":\"mock\",\"object\":\"model\","
                                     "\"created\":1700000000,\"owned_by\":\"mock\"}]}";
        static const char none[] = "{\"error\":{\"message\":\"no such path\"}}";
        if (ends(path, "/models")) reply(c, 200, models, sizeof models - 1);
        else reply(c, 404, none, sizeof none - 1);
        flush(c);
        return;
    }
    now.n++;
    if (++now.inflight > now.peak) now.peak = now.inflight;
    strcpy(c->model, "mock");
    const char *m = memmem(body, n, "\"model\"", 7);
    if (m) {
        const char *end = body + n, *s = m + 7;
        while (s < end && (isspace((unsigned char)*s) || *s == ':')) s++;
        if (s < end && *s == '"') {
            size_t k = 0;
            for (s++; s < end && *s != '"' && *s != '\\' && k < sizeof c->model - 1; s++) c->model[k++] = *s;
            c->model[k] = 0;
        }
    }
    int stream = flag(body, n, "\"stream\"");
    c->usage = stream && flag(body, n, "\"include_usage\"");
    c->state = stream ? WAIT_STREAM : WAIT_JSON;
    if (stream) now.nstream++;
    if (now.lat <= 0) answer(c); else timer_add(c, now_us() + (int64_t)(now.lat * 1000));
}

/* Parses one request at a time; a pipelined next one waits until the answer is out. */
static void on_input(Conn *c) {
    if (c->parsing) return;
    while (!c->dead && c->state == IDLE && c->in.len) {
        char *end = memmem(c->in.p, c->in.len, "\r\n\r\n", 4);
        if (!end) return;
        size_t head = end - c->in.p + 4, length = 0;
        int chunked = 0;
        char *line = memmem(c->in.p, head, "\r\n", 2) + 2;
        while (line < end) {
            char *eol = memmem(line, end + 2 - line, "\r\n", 2);
            if (!strncasecmp(line, "content-length:", 15)) length = strtoul(line + 15, NULL, 10);
            else if (!strncasecmp(line, "transfer-encoding:", 18) && memmem(line, eol - line, "chunked", 7)) chunked = 1;
            line = eol + 2;
        }
        size_t total = head + length;
        Buf joined = {0};
        const char *body = c->in.p + head;
        if (chunked) {
            size_t at = head;
            for (;;) {
                char *nl = memmem(c->in.p + at, c->in.len - at, "\r\n", 2);
                if (!nl) { free(joined.p); return; }
                size_t n = strtoul(c->in.p + at, NULL, 16);
                at = nl - c->in.p + 2;
                if (c->in.len < at + n + 2) { free(joined.p); return; }
                put(&joined, c->in.p + at, n);
                at += n + 2;
                if (!n) break;
            }
            total = at;
            body = joined.p;
            length = joined.len;
        } else if (c->in.len < total) return;
        char path[2048] = "/";
        char *s = memchr(c->in.p, ' ', head), *e = s ? memchr(s + 1, ' ', c->in.p + head - s - 1) : NULL;
        if (s && e && (size_t)(e - s) < sizeof path) { memcpy(path, s + 1, e - s - 1); path[e - s - 1] = 0; }
        c->parsing = 1;
        request(c, path, body, length);
        c->parsing = 0;
        free(joined.p);
        if (c->dead) return;
        memmove(c->in.p, c->in.p + total, c->in.len - total);
        c->in.len -= total;
    }
}

int main(int argc, char **argv) {
    int port = argc > 1 ? atoi(argv[1]) : 9100, one = 1;
    signal(SIGPIPE, SIG_IGN);
    char none[1] = "";
    set_keys(none);
    int ls = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(ls, (struct sockaddr *)&a, sizeof a) || listen(ls, 4096)) { perror("upstream"); return 1; }
    ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event e = {EPOLLIN, {.ptr = NULL}}, ev[256];
    epoll_ctl(ep, EPOLL_CTL_ADD, ls, &e);
    fprintf(stderr, "upstream: http://127.0.0.1:%d\n", port);
    for (;;) {
        struct timespec ts = {0, 0}, *wait = NULL;
        if (nheap) {
            int64_t d = heap[0].at - now_us();
            if (d < 0) d = 0;
            ts = (struct timespec){d / 1000000, d % 1000000 * 1000};
            wait = &ts;
        }
        int n = epoll_pwait2(ep, ev, 256, wait, NULL);
        for (int i = 0; i < n; i++) {
            Conn *c = ev[i].data.ptr;
            if (!c) {
                int fd;
                while ((fd = accept4(ls, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    c = calloc(1, sizeof *c);
                    if (!c) abort();
                    c->fd = fd;
                    e = (struct epoll_event){EPOLLIN | EPOLLRDHUP, {.ptr = c}};
                    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
                }
                continue;
            }
            if (c->dead) continue;
            if (ev[i].events & EPOLLOUT && !flush(c)) continue;
            if (ev[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
                static char tmp[262144];
                ssize_t k = recv(c->fd, tmp, sizeof tmp, 0);
                if (k > 0) { put(&c->in, tmp, k); on_input(c); }
                else if (k == 0 || errno != EAGAIN) drop(c);
            }
        }
        for (int64_t t = now_us(); nheap && heap[0].at <= t;) {
            Timer x = timer_pop();
            if (!x.c->dead && x.gen == x.c->gen) answer(x.c);
        }
        if (!nheap) while (graveyard) { Conn *d = graveyard; graveyard = d->next_dead; free(d); }
    }
}
