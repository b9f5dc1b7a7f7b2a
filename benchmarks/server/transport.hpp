#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "content.hpp"

namespace kumo::bench {

enum class Io { kOk, kBlocked, kClosed };

struct Moved {
  Io state;
  std::size_t bytes;
};

// A non-blocking connection. `read`, `discard` and the writes move what they can at once.
class Transport {
 public:
  virtual ~Transport() = default;

  virtual Io handshake() = 0;
  virtual Moved read(char* to, std::size_t capacity) = 0;
  // Takes bytes that nobody wants to see.
  virtual Moved discard(std::uint64_t at_most) = 0;
  // `more`: further data follows at once.
  virtual Moved write(std::string_view data, bool more) = 0;
  // Sends the content of an object.
  virtual Moved write_content(const Content& content, std::uint64_t offset,
                              std::uint64_t count) = 0;
  // Hands over what a write has only buffered.
  virtual Io flush() = 0;
  // Whether a blocked call waits for the socket to become writable.
  [[nodiscard]] virtual bool wants_write() const = 0;
};

// Owns the descriptor.
[[nodiscard]] std::unique_ptr<Transport> make_plain_transport(int descriptor);

// TLS of all connections of a server.
class Tls {
 public:
  // Reads PEM files. Throws std::runtime_error with the library's reason.
  Tls(const char* certificate_chain, const char* private_key);
  ~Tls();
  Tls(const Tls&) = delete;
  Tls& operator=(const Tls&) = delete;

  [[nodiscard]] std::unique_ptr<Transport> accept(int descriptor);

 private:
  void* context_;
};

}  // namespace kumo::bench
