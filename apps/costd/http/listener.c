/* _DEFAULT_SOURCE declares flock(). */
#define _DEFAULT_SOURCE

#include "listener.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "fail.h"
#include "mem.h"

enum {
    WAITING_MAX = 1024, /* connections that the kernel keeps until they are accepted */
    TURN_MS = 10,
    TURNS = 300,
};
static const char unix_prefix[] = "unix:";

static bool is_unix_address(const char *address)
{
    return strncmp(address, unix_prefix, strlen(unix_prefix)) == 0;
}

bool listener_split(const char *address, char host[256], char port[6])
{
    const char *colon = strrchr(address, ':');
    if (!colon || colon == address || !colon[1] || strspn(colon + 1, "0123456789") != strlen(colon + 1))
        return false;
    unsigned long long number = strtoull(colon + 1, NULL, 10);
    size_t n = (size_t)(colon - address);
    if (address[0] == '[' && address[n - 1] == ']' && n > 2) {
        address++;
        n -= 2;
    } else if (memchr(address, ':', n)) {
        return false;
    }
    if (n > 255 || number > 65535)
        return false;
    memcpy(host, address, n);
    host[n] = '\0';
    snprintf(port, 6, "%u", (unsigned)number);
    return true;
}

bool listener_address_is_good(const char *address)
{
    char host[256], port[6];
    return is_unix_address(address) ? address[strlen(unix_prefix)] != '\0'
                                    : listener_split(address, host, port);
}

static enum cinf_status bind_tcp(int fd, const struct addrinfo *found, const char *address)
{
    const int on = 1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(fd, found->ai_addr, found->ai_addrlen) != 0)
        return cinf_fail(CINF_EIO, "cannot listen on %s: %s", address, strerror(errno));
    return CINF_OK;
}

static enum cinf_status open_tcp(struct listener *l, const char *address)
{
    char host[256], port[6];
    struct addrinfo *found, hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
    if (!listener_split(address, host, port))
        return cinf_fail(CINF_EINVAL, "\"%s\" is not HOST:PORT", address);
    int error = getaddrinfo(host, port, &hints, &found);
    if (error)
        return cinf_fail(CINF_EIO, "cannot listen on %s: %s", address, gai_strerror(error));
    l->fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    enum cinf_status status = l->fd < 0
                                  ? cinf_fail(CINF_EIO, "cannot listen on %s: %s", address, strerror(errno))
                                  : bind_tcp(l->fd, found, address);
    freeaddrinfo(found);
    return status;
}

/* Processes that start together on one path take turns, or each could take the other's new socket for a dead
 * one.  A turn takes milliseconds, but anyone who may read the folder may hold its lock for ever, so the wait
 * is bounded.  Returns a descriptor to close; -1, where the folder cannot be read, means that they are not
 * kept apart. */
static int lock_folder(const char *path)
{
    static const struct timespec pause = { .tv_nsec = TURN_MS * 1000000L };
    char folder[sizeof((struct sockaddr_un *)NULL)->sun_path];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    memcpy(folder, path, n);
    folder[n] = '\0';
    int fd = open(slash == path ? "/" : slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int turn = 0; fd >= 0 && turn < TURNS && flock(fd, LOCK_EX | LOCK_NB) != 0; turn++)
        (void)nanosleep(&pause, NULL);
    return fd;
}

/* Makes room for our socket.  Only a socket that refuses connections may go: a process that was killed has
 * left it.  Whatever else stands at the path belongs to others. */
static enum cinf_status clear_path(const struct sockaddr_un *address)
{
    const char *path = address->sun_path;
    struct stat there;
    if (lstat(path, &there) != 0)
        return errno == ENOENT ? CINF_OK
                               : cinf_fail(CINF_EIO, "cannot listen on %s: %s", path, strerror(errno));
    if (!S_ISSOCK(there.st_mode))
        return cinf_fail(CINF_EIO, "cannot listen on %s: it exists and is not a socket", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return cinf_fail(CINF_EIO, "cannot listen on %s: %s", path, strerror(errno));
    bool dead = connect(fd, (const struct sockaddr *)address, sizeof *address) != 0 && errno == ECONNREFUSED;
    close(fd);
    if (!dead || unlink(path) != 0)
        return cinf_fail(CINF_EIO, "cannot listen on %s: %s", path, strerror(dead ? errno : EADDRINUSE));
    return CINF_OK;
}

/* Listens already, so that the next process finds a socket that answers. */
static enum cinf_status bind_unix(struct listener *l, const struct sockaddr_un *address)
{
    const char *path = address->sun_path;
    TRY(clear_path(address));
    l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (l->fd < 0 || bind(l->fd, (const struct sockaddr *)address, sizeof *address) != 0)
        return cinf_fail(CINF_EIO, "cannot listen on %s: %s", path, strerror(errno));
    struct stat made;
    if (lstat(path, &made) == 0) {
        l->path = mem_copy_text(path);
        l->device = made.st_dev;
        l->inode = made.st_ino;
    }
    if (listen(l->fd, WAITING_MAX) != 0)
        return cinf_fail(CINF_EIO, "cannot listen on %s: %s", path, strerror(errno));
    return CINF_OK;
}

static enum cinf_status open_unix(struct listener *l, const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof address.sun_path)
        return cinf_fail(CINF_EINVAL, "the path of the socket is too long: %s", path);
    memcpy(address.sun_path, path, strlen(path));
    int lock = lock_folder(path);
    enum cinf_status status = bind_unix(l, &address);
    if (lock >= 0)
        close(lock);
    return status;
}

static bool is_loopback(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)address)->sin6_addr);
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
    return address->ss_family == AF_INET && ntohl(v4->sin_addr.s_addr) >> 24 == 127;
}

/* Finds out what the socket is bound to; an inherited one says so only here. */
static enum cinf_status look(struct listener *l)
{
    struct sockaddr_storage address = { 0 };
    socklen_t size = sizeof address;
    if (getsockname(l->fd, (struct sockaddr *)&address, &size) != 0)
        return cinf_fail(CINF_EIO, "descriptor %d is not a socket", l->fd);
    l->is_unix = address.ss_family == AF_UNIX;
    l->is_private = l->is_unix || is_loopback(&address);
    if (!l->is_unix)
        l->port = ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                                      : ((struct sockaddr_in *)&address)->sin_port);
    return CINF_OK;
}

enum cinf_status listener_open(struct listener *out, const char *address)
{
    struct listener l = { .fd = -1 };
    enum cinf_status status =
        is_unix_address(address) ? open_unix(&l, address + strlen(unix_prefix)) : open_tcp(&l, address);
    if (status == CINF_OK)
        status = look(&l);
    if (status != CINF_OK) {
        listener_close(&l);
        return status;
    }
    *out = l;
    return CINF_OK;
}

enum cinf_status listener_inherit(struct listener *out, int fd)
{
    struct listener l = { .fd = fd, .inherited = true };
    TRY(look(&l));
    *out = l;
    return CINF_OK;
}

enum cinf_status listener_begin(const struct listener *l)
{
    if (!l->is_unix && !l->inherited && listen(l->fd, WAITING_MAX) != 0)
        return cinf_fail(CINF_EIO, "cannot listen on port %u: %s", l->port, strerror(errno));
    return CINF_OK;
}

void listener_close(struct listener *l)
{
    if (l->fd >= 0)
        close(l->fd);
    struct stat there;
    if (l->path && lstat(l->path, &there) == 0 && there.st_dev == l->device && there.st_ino == l->inode)
        (void)unlink(l->path);
    mem_free(l->path);
    l->fd = -1;
    l->path = NULL;
}
