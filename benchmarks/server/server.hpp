#pragma once

#include <sys/epoll.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "connection.hpp"

namespace kumo::bench {

// Serves on 127.0.0.1, on the thread that calls `run`.
class Server {
 public:
  // Port 0: any. `tls` may be nullptr, for plain HTTP. `spin` is how long to look for more before
  // the thread sleeps: waking it is work of the kernel's that is billed to the client, 5 µs and
  // more in a virtual machine, and how often it is due is chance.
  Server(std::uint16_t port, std::chrono::microseconds spin, Tls* tls, S3& s3,
         const Content& content);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  [[nodiscard]] std::uint16_t port() const;
  // Until SIGINT or SIGTERM, which must be blocked.
  void run();

 private:
  void watch(int descriptor, std::uint32_t events, int how);
  // As epoll_wait.
  int wait(epoll_event* events, int capacity) const;
  void accept_all();
  void serve(int descriptor);

  std::chrono::microseconds spin_;
  Tls* tls_;
  S3& s3_;
  const Content& content_;
  int epoll_;
  int listener_;
  int signals_;
  struct Watched {
    std::unique_ptr<Connection> connection;
    std::uint32_t events;
  };
  std::unordered_map<int, Watched> connections_;
  std::vector<int> again_;
};

}  // namespace kumo::bench
