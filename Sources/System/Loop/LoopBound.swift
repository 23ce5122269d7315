/// Carries a loop's own state through `@Sendable` closures that run on that loop. Anyone may hold it; only the loop's
/// thread may look inside, and the value is let go on that thread whoever drops the last reference to its carrier.
@safe
public final class LoopBound<Value>: @unchecked Sendable {
    private final class Box {
        let value: Value

        init(_ value: Value) {
            self.value = value
        }
    }

    private let box: Unmanaged<Box>
    private let remote: EventLoop.Remote

    public init(_ value: Value, on loop: EventLoop) {
        loop.preconditionOnLoop()
        unsafe box = .passRetained(Box(value))
        remote = loop.remote
    }

    deinit { unsafe remote.letGo(box) }

    public func value(on loop: EventLoop) -> Value {
        precondition(loop.remote === remote, "a value bound to one loop was used on another")
        loop.preconditionOnLoop()
        return unsafe box.takeUnretainedValue().value
    }
}
