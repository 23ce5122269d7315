import PushLink

/// How much of what is there a worker can reach: what decides whether it should have partitions at all.
public struct Reach: Equatable, Sendable {
    /// A chat server that announces itself and to which there is no link.
    public struct Missing: Equatable, Sendable {
        public let name: String
        public let address: String
        public let reason: String
        public let sinceMs: Int64

        public init(name: String, address: String, reason: String, sinceMs: Int64) {
            (self.name, self.address, self.reason, self.sinceMs) = (name, address, reason, sinceMs)
        }
    }

    public var missing: [Missing]
    public var reachedCount: Int
    /// Another worker has links to more of them than we have: what we could not place, it could.
    public var isLessThanOthers: Bool

    public init(missing: [Missing] = [], reachedCount: Int = 0, isLessThanOthers: Bool = false) {
        (self.missing, self.reachedCount, self.isLessThanOthers) = (missing, reachedCount, isLessThanOthers)
    }

    /// Whether records that are taken now would not come to where they should, and others would do better or as well.
    public var isUseless: Bool { !missing.isEmpty && (isLessThanOthers || reachedCount == 0) }

    /// In one line, for the log and for `/readyz`.
    public var trouble: String? {
        guard let first = missing.first else { return nil }
        let others = missing.count > 1 ? " (and \(missing.count - 1) more)" : ""
        let better = isLessThanOthers ? "; other workers reach more chat servers" : ""
        return "cannot reach chat server \(first.name) at \(first.address): \(first.reason)\(others)\(better)"
    }
}

extension DeliveryWorker {
    public func reach(nowMs: Int64) -> Reach {
        var reach = Reach()
        var others: [String: Int] = [:]
        for case let instance? in instances {
            let isAlive = instance.isAlive(nowMs: nowMs, silentMs: settings.hearingMs)
            guard instance.isOpen || isAlive else { continue }
            for worker in instance.workers where worker != settings.identity.name { others[worker, default: 0] += 1 }
            if instance.isOpen {
                reach.reachedCount += 1
            } else {
                reach.missing.append(
                    Reach.Missing(
                        name: instance.identity.name, address: instance.address,
                        reason: instance.failure ?? "no link yet", sinceMs: instance.lostMs ?? nowMs))
            }
        }
        reach.isLessThanOthers = !reach.missing.isEmpty && others.values.contains { $0 > reach.reachedCount }
        return reach
    }

    /// The partitions whose users may have sessions that we have not been told of: on a chat server that is there, and that
    /// has not named them since the partition is ours, or cannot be reached for longer than a link is away by chance.
    func uncertainPartitions(nowMs: Int64) -> Set<Int32> {
        let unasked = instances.indices.filter { number in
            guard let instance = instances[number], !instance.isGivenUp else { return false }
            return instance.isAlive(nowMs: nowMs, silentMs: settings.silentMs)
        }
        return Set(
            partitions.lazy.map(\.number).filter { [instances, settings] partition in
                unasked.contains { number in
                    guard let instance = instances[number] else { return false }
                    let isAway = instance.lostMs.map { nowMs - $0 >= settings.silentMs } ?? false
                    return isAway || !instance.told.contains(partition)
                }
            })
    }

    /// Pushes that wait until it is known whether their users have a session.
    public var heldPushCount: Int { push.heldCount }
}
