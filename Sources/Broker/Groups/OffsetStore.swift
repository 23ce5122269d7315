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
    /// Places with commits that are in the log and not durable yet, and how many of them: what is deleted meanwhile must
    /// take them along.
    private var underWay: [String: [Place: Int]] = [:]

    func offsets(of group: String) -> [Place: Committed] { groups[group] ?? [:] }

    /// Where a group has committed, or is about to have.
    func places(of group: String) -> Set<Place> {
        Set(offsets(of: group).keys).union(underWay[group, default: [:]].keys)
    }

    /// The groups that have committed, or are about to have.
    var names: Set<String> { Set(groups.keys).union(underWay.keys) }

    func isUnderWay(_ group: String) -> Bool { underWay[group] != nil }

    mutating func begin(_ group: String, _ places: [Place]) {
        for place in places { underWay[group, default: [:]][place, default: 0] += 1 }
    }

    mutating func end(_ group: String, _ places: [Place]) {
        for place in places {
            guard let count = underWay[group]?[place] else { continue }
            underWay[group]?[place] = count > 1 ? count - 1 : nil
        }
        if underWay[group]?.isEmpty == true { underWay[group] = nil }
    }

    subscript(group: String, place: Place) -> Committed? {
        get { groups[group]?[place] }
        set {
            groups[group, default: [:]][place] = newValue
            if groups[group]?.isEmpty == true { groups[group] = nil }
        }
    }

    mutating func remove(_ group: String) { groups[group] = nil }
}
