/// The committed offsets of all groups.
struct OffsetStore {
    struct Committed: Equatable {
        var offset: Int64
        var leaderEpoch: Int32
        var metadata: String
        var committedMs: Int64
    }

    struct Place: Hashable, Comparable {
        var topic: String
        var partition: Int32

        static func < (left: Place, right: Place) -> Bool {
            (left.topic, left.partition) < (right.topic, right.partition)
        }
    }

    private(set) var groups: [String: [Place: Committed]] = [:]

    func offsets(of group: String) -> [Place: Committed] { groups[group] ?? [:] }

    subscript(group: String, place: Place) -> Committed? {
        get { groups[group]?[place] }
        set {
            groups[group, default: [:]][place] = newValue
            if groups[group]?.isEmpty == true { groups[group] = nil }
        }
    }

    mutating func remove(_ group: String) { groups[group] = nil }
}
