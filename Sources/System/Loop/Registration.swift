internal import CLinux

/// What a watched descriptor is ready for.
public struct Readiness: OptionSet, Sendable {
    public let rawValue: UInt8

    public init(rawValue: UInt8) {
        self.rawValue = rawValue
    }

    public static let read = Readiness(rawValue: 1)
    public static let write = Readiness(rawValue: 2)
    /// The other end hung up or the descriptor is broken. Always reported, never asked for.
    public static let hangup = Readiness(rawValue: 4)

    var epollEvents: UInt32 {
        (contains(.read) ? EPOLLIN.rawValue : 0) | (contains(.write) ? EPOLLOUT.rawValue : 0)
    }

    init(epollEvents events: UInt32) {
        self = []
        if events & EPOLLIN.rawValue != 0 { insert(.read) }
        if events & EPOLLOUT.rawValue != 0 { insert(.write) }
        if events & (EPOLLHUP.rawValue | EPOLLERR.rawValue) != 0 { insert(.hangup) }
    }
}

/// A watched descriptor that something else owns. It stays watched until `cancel()`; cancel before closing it.
public final class Registration {
    private unowned let loop: EventLoop
    private let descriptor: Int32
    private var handler: ((Readiness) -> Void)?
    var slot: UInt32 = .max

    init(loop: EventLoop, descriptor: Int32, interest: Readiness, handler: @escaping (Readiness) -> Void) {
        self.loop = loop
        self.descriptor = descriptor
        self.interest = interest
        self.handler = handler
    }

    /// What the handler is called for; `[]` pauses it.
    public var interest: Readiness {
        didSet {
            guard isActive, interest != oldValue else { return }
            loop.modify(slot, descriptor, interest.epollEvents)
        }
    }

    public var isActive: Bool { handler != nil }

    public func cancel() {
        guard isActive else { return }
        handler = nil
        loop.remove(slot, descriptor)
    }

    func ready(_ events: UInt32) {
        // Hang-ups come whether asked for or not.
        handler?(Readiness(epollEvents: events))
    }

    func abandon() { handler = nil }
}
