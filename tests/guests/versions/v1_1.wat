;; A plugin of the made-up 1.1: calls the function that 1.0 does not have.
(component
  (import "viworks:gateway/types@1.1.0" (instance $types
    (type $denial-shape (record (field "capability" string) (field "rule" string) (field "message" string)))
    (export "denial" (type $denial (eq $denial-shape)))
    (type $failure-shape (variant
      (case "invalid-argument" string)
      (case "denied" $denial)
      (case "conflict" string)
      (case "not-found" string)
      (case "unavailable" string)
      (case "failed" string)
      (case "other" string)))
    (export "failure" (type (eq $failure-shape)))))
  (alias export $types "failure" (type $failure))
  (import "viworks:gateway/log@1.1.0" (instance $log
    (type $level-shape (enum "debug" "info" "warn" "error"))
    (export "level" (type $level (eq $level-shape)))
    (export "mark" (func (param "number" u32)))))

  (core module $memory
    (memory (export "memory") 1)
    (data (i32.const 64) "a line from 1.1.0"))
  (core instance $memory (instantiate $memory))
  (alias core export $memory "memory" (core memory $text))
  (alias export $log "mark" (func $log-function))
  (core func $lowered (canon lower (func $log-function) (memory $text)))

  (core module $verb
    (import "host" "memory" (memory 1))
    (import "host" "log" (func $log (param i32)))
    (func (export "say") (result i32)
      (call $log (i32.const 11))
      (i32.store8 (i32.const 16) (i32.const 0))
      (i32.store (i32.const 20) (i32.const 7))
      (i32.const 16)))
  (core instance $main (instantiate $verb
    (with "host" (instance (export "memory" (memory $text)) (export "log" (func $lowered))))))

  (func $lifted (result (result u32 (error $failure)))
    (canon lift (core func $main "say") (memory $text)))
  (instance (export "viworks:versions/verbs@1.0.0")
    (export "say" (func $lifted))))
