#pragma once

#include <aws/common/allocator.h>

namespace kumo::crt {

// aws_default_allocator(), but that large blocks are kept for the next one who asks.
//
// The CRT's pool of messages keeps four for each event loop and frees the rest. Messages of 512 KiB
// are the top of a thread's heap, so that malloc gives their memory back to the system, which then
// has to find and clear it again for the next one (what it costs is in docs/performance.md).
// Any thread; lives as long as the process.
aws_allocator* block_allocator() noexcept;

}  // namespace kumo::crt
