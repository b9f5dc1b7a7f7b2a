#include "server.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <system_error>

namespace kumo::bench {
namespace {

int checked(int result, const char* what) {
  if (result < 0) throw std::system_error(errno, std::generic_category(), what);
  return result;
}

int listen_on(std::uint16_t port) {
  const int listener =
      checked(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket");
  const int on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  checked(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address), "bind");
  checked(listen(listener, SOMAXCONN), "listen");
  return listener;
}

int signal_descriptor() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  return checked(signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC), "signalfd");
}

}  // namespace

Server::Server(std::uint16_t port, std::chrono::microseconds spin, Tls* tls, S3& s3,
               const Content& content)
    : spin_(spin),
      tls_(tls),
      s3_(s3),
      content_(content),
      epoll_(checked(epoll_create1(EPOLL_CLOEXEC), "epoll_create1")),
      listener_(listen_on(port)),
      signals_(signal_descriptor()) {
  watch(listener_, EPOLLIN, EPOLL_CTL_ADD);
  watch(signals_, EPOLLIN, EPOLL_CTL_ADD);
}

Server::~Server() {
  connections_.clear();
  for (const int descriptor : {signals_, listener_, epoll_}) close(descriptor);
}

std::uint16_t Server::port() const {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  checked(getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size), "getsockname");
  return ntohs(address.sin_port);
}

void Server::watch(int descriptor, std::uint32_t events, int how) {
  epoll_event event{};
  event.events = events;
  event.data.fd = descriptor;
  checked(epoll_ctl(epoll_, how, descriptor, &event), "epoll_ctl");
}

void Server::run() {
  epoll_event events[64];
  while (true) {
    const int count = wait(events, 64);
    for (int i = 0; i < count; ++i) {
      const int descriptor = events[i].data.fd;
      if (descriptor == signals_) return;
      if (descriptor == listener_) {
        accept_all();
      } else {
        serve(descriptor);
      }
    }
    std::vector<int> again;
    again.swap(again_);
    for (const int descriptor : again) serve(descriptor);
  }
}

int Server::wait(epoll_event* events, int capacity) const {
  const auto sleep_at = std::chrono::steady_clock::now() + spin_;
  int count = epoll_wait(epoll_, events, capacity, 0);
  while (count == 0 && again_.empty() && std::chrono::steady_clock::now() < sleep_at) {
    sched_yield();  // to a client with more threads than there are other processors
    count = epoll_wait(epoll_, events, capacity, 0);
  }
  if (count == 0 && again_.empty()) count = epoll_wait(epoll_, events, capacity, -1);
  if (count < 0 && errno != EINTR) checked(count, "epoll_wait");
  return count;
}

void Server::accept_all() {
  while (true) {
    const int descriptor = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (descriptor < 0) return;
    const int on = 1;
    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    auto transport = tls_ != nullptr ? tls_->accept(descriptor) : make_plain_transport(descriptor);
    connections_[descriptor] = {std::make_unique<Connection>(std::move(transport), s3_, content_),
                                EPOLLIN};
    watch(descriptor, EPOLLIN, EPOLL_CTL_ADD);
    ++s3_.statistics().connections;
  }
}

void Server::serve(int descriptor) {
  const auto found = connections_.find(descriptor);
  if (found == connections_.end()) return;  // closed since it was noted
  switch (const Connection::Next next = found->second.connection->run()) {
    case Connection::Next::kWaitToRead:
    case Connection::Next::kWaitToWrite: {
      const std::uint32_t wanted =
          next == Connection::Next::kWaitToWrite ? static_cast<std::uint32_t>(EPOLLOUT) : EPOLLIN;
      if (found->second.events != wanted) {
        found->second.events = wanted;
        watch(descriptor, wanted, EPOLL_CTL_MOD);
      }
      break;
    }
    case Connection::Next::kRunAgain:
      again_.push_back(descriptor);
      break;
    case Connection::Next::kClose:
      connections_.erase(found);
  }
}

}  // namespace kumo::bench
