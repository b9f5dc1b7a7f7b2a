// In place of transport_tls.cpp where OpenSSL's headers are missing.

#include <stdexcept>

#include "transport.hpp"

namespace kumo::bench {

Tls::Tls(const char*, const char*) : context_(nullptr) {
  throw std::runtime_error("built without TLS: install libssl-dev and build again");
}

Tls::~Tls() = default;

std::unique_ptr<Transport> Tls::accept(int) { return nullptr; }

}  // namespace kumo::bench
