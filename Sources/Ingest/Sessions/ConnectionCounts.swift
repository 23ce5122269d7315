import Synchronization
import System
import Wire

/// How many connections each user and address has, over all loops of the process. Asked when a connection comes and goes,
/// never for a message.
final class ConnectionCounts: Sendable {
    enum Key: Hashable, Sendable {
        case user(UserID)
        case address(String)
    }

    private let counts = Mutex<[Key: Int]>([:])

    /// Whether there was room for one more.
    func add(_ key: Key, max: Int) -> Bool {
        counts.withLock { counts in
            let count = counts[key] ?? 0
            guard count < max else { return false }
            counts[key] = count + 1
            return true
        }
    }

    func remove(_ key: Key) {
        counts.withLock { counts in
            let count = (counts[key] ?? 0) - 1
            counts[key] = count > 0 ? count : nil
        }
    }
}
