#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "body.hpp"
#include "content.hpp"
#include "http.hpp"
#include "s3.hpp"
#include "transport.hpp"

namespace kumo::bench {

// One client's connection: reads a request, answers it, and begins again.
class Connection {
 public:
  enum class Next { kWaitToRead, kWaitToWrite, kRunAgain, kClose };

  Connection(std::unique_ptr<Transport> transport, S3& s3, const Content& content);

  // Does what can be done without waiting, up to a bound that is fair to others.
  Next run();

 private:
  enum class State { kHandshake, kHead, kBody, kResponse };

  Io step();
  Io read_head();
  Io read_body();
  Io send_response();
  void begin_response(const Response& response);
  Io refuse(std::string_view why);

  std::unique_ptr<Transport> transport_;
  S3& s3_;
  const Content& content_;
  State state_ = State::kHandshake;
  std::vector<char> input_;
  std::size_t input_start_ = 0;
  std::size_t input_end_ = 0;
  Request request_;
  Call call_;
  Body body_;
  std::string output_;
  std::size_t output_sent_ = 0;
  std::uint64_t content_offset_ = 0;
  std::uint64_t content_left_ = 0;
  bool close_after_ = false;
};

}  // namespace kumo::bench
