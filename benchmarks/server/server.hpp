#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "connection.hpp"

namespace kumo::bench {

// Serves on 127.0.0.1, on the thread that calls `run`.
class Server {
 public:
  // Port 0: any. `tls` may be nullptr, for plain HTTP.
  Server(std::uint16_t port, Tls* tls, S3& s3, const Content& content);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  [[nodiscard]] std::uint16_t port() const;
  // Until SIGINT or SIGTERM, which must be blocked.
  void run();

 private:
  void watch(int descriptor, std::uint32_t events, int how);
  void accept_all();
  void serve(int descriptor);

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
