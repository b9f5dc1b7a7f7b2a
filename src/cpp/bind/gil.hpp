#pragma once

#include <pybind11/pybind11.h>
#include <unistd.h>

namespace kumo::bind {

// Gives the GIL away for the life of this object.
//
// Before Python 3.14, taking the GIL back while the interpreter is finalizing ends the thread (a
// daemon thread, then) by unwinding its stack, and an unwinding that meets a destructor aborts the
// process. Such a thread sleeps here for what is left of the process instead, as in 3.14.
class GilReleased {
 public:
  GilReleased() : state_(PyEval_SaveThread()) {}
  ~GilReleased() {
    try {
      PyEval_RestoreThread(state_);
    } catch (...) {  // not by a type of its own: C code throws nothing else
      for (;;) ::pause();
    }
  }
  GilReleased(const GilReleased&) = delete;
  GilReleased& operator=(const GilReleased&) = delete;

 private:
  PyThreadState* state_;
};

}  // namespace kumo::bind
