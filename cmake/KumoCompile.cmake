# Flags for kumo_crt's own targets.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_C_VISIBILITY_PRESET hidden)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

set(KUMO_CRT_SANITIZE "" CACHE STRING "Sanitizers: empty, address (with undefined) or thread")
set_property(CACHE KUMO_CRT_SANITIZE PROPERTY STRINGS "" address thread)

set(KUMO_SANITIZE_FLAGS "")
if(KUMO_CRT_SANITIZE STREQUAL "address")
  set(KUMO_SANITIZE_FLAGS -fsanitize=address,undefined -fno-sanitize-recover=undefined)
elseif(KUMO_CRT_SANITIZE STREQUAL "thread")
  set(KUMO_SANITIZE_FLAGS -fsanitize=thread)
elseif(KUMO_CRT_SANITIZE)
  message(FATAL_ERROR
    "KUMO_CRT_SANITIZE=${KUMO_CRT_SANITIZE} is unknown: leave it empty, or use address or thread.")
endif()

function(kumo_compile_settings target)
  target_compile_options(${target} PRIVATE
    -Wall -Wextra -Wshadow -Wconversion -Wnon-virtual-dtor -Wold-style-cast
    $<$<BOOL:${KUMO_CRT_WERROR}>:-Werror>)
  if(KUMO_SANITIZE_FLAGS)
    # -O1: stack traces that still have their frames, and a build in half of the time.
    # GCC's instrumentation makes it see uninitialised std::optional contents everywhere.
    target_compile_options(${target} PRIVATE
      ${KUMO_SANITIZE_FLAGS} -O1 -fno-omit-frame-pointer -g1
      $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
  endif()
endfunction()

function(kumo_link_settings target)
  if(KUMO_SANITIZE_FLAGS)
    target_link_options(${target} PRIVATE ${KUMO_SANITIZE_FLAGS})
  else()
    target_link_options(${target} PRIVATE $<$<CONFIG:Release,MinSizeRel>:-Wl,-s>)
  endif()
endfunction()
