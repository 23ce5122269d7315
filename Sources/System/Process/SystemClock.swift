public import Runtime

/// The machine's clock.
public struct SystemClock: Clock {
    public init() {}

    public var wallMs: Int64 { SystemTime.wallMs }
    public var monotonicNs: UInt64 { SystemTime.monotonicNs }
}
