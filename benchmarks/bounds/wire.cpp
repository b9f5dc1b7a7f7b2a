#include "wire.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <stdexcept>
#include <system_error>

namespace kumo::bench {
namespace {

std::size_t checked(ssize_t result, const char* what) {
  if (result < 0) throw std::system_error(errno, std::generic_category(), what);
  if (result == 0) throw std::runtime_error(std::string(what) + ": the server closed");
  return static_cast<std::size_t>(result);
}

}  // namespace

Wire::Wire(std::uint16_t port) : descriptor_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (descriptor_ < 0 ||
      connect(descriptor_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    throw std::system_error(errno, std::generic_category(), "connect");
  }
  const int on = 1;
  setsockopt(descriptor_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

Wire::~Wire() { close(descriptor_); }

void Wire::write_all(const char* data, std::size_t size) const {
  while (size != 0) {
    const std::size_t count = checked(send(descriptor_, data, size, MSG_NOSIGNAL), "send");
    data += count;
    size -= count;
  }
}

std::size_t Wire::receive(char* to, std::size_t capacity) const {
  return checked(recv(descriptor_, to, capacity, 0), "recv");
}

void Wire::begin_put(std::string_view key, std::uint64_t size) {
  std::string head("PUT /bucket/");
  head.append(key).append(" HTTP/1.1\r\nHost: localhost\r\nContent-Length: ");
  head.append(std::to_string(size)).append("\r\n\r\n");
  std::size_t sent = 0;
  while (sent != head.size()) {
    // The content follows in the same segment.
    const int flags = MSG_NOSIGNAL | MSG_MORE;
    sent += checked(send(descriptor_, head.data() + sent, head.size() - sent, flags), "send");
  }
}

std::size_t Wire::begin_get(std::string_view key, char* buffer, std::size_t capacity) {
  std::string head("GET /bucket/");
  head.append(key).append(" HTTP/1.1\r\nHost: localhost\r\n\r\n");
  write_all(head.data(), head.size());
  // Into memory of its own, so that content lands at the begin of the buffer, aligned.
  char text[4096];
  std::size_t have = 0;
  while (true) {
    have += receive(text + have, sizeof text - have);
    const std::string_view seen(text, have);
    if (const auto end = seen.find("\r\n\r\n"); end != std::string_view::npos) {
      if (!seen.starts_with("HTTP/1.1 200 ")) throw std::runtime_error("GET was refused");
      const std::string_view rest = seen.substr(end + 4);
      if (rest.size() > capacity) throw std::runtime_error("more content than asked for");
      rest.copy(buffer, rest.size());
      return rest.size();
    }
    if (have == sizeof text) throw std::runtime_error("GET: headers without an end");
  }
}

void Wire::expect_success() {
  char text[4096];
  std::size_t have = 0;
  while (std::string_view(text, have).find("\r\n\r\n") == std::string_view::npos) {
    have += receive(text + have, sizeof text - have);
  }
  if (!std::string_view(text, have).starts_with("HTTP/1.1 200 ")) {
    throw std::runtime_error("PUT was refused");
  }
}

}  // namespace kumo::bench
