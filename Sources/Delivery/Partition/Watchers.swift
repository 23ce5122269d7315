public import Wire

/// Which instances want to hear of which users' presence. By id: being asked about somebody makes nobody a user of the
/// partition, or anyone could make its tables grow by asking.
public struct Watchers {
    private var instances: [UserID: [UInt16]] = [:]

    public init() {}

    public mutating func add(_ instance: Int, of user: UserID) {
        let instance = UInt16(instance)
        if instances[user]?.contains(instance) != true { instances[user, default: []].append(instance) }
    }

    public mutating func remove(_ instance: Int, of user: UserID) {
        guard let list = instances[user] else { return }
        let rest = list.filter { $0 != UInt16(instance) }
        instances[user] = rest.isEmpty ? nil : rest
    }

    public mutating func remove(_ instance: Int) {
        for (user, list) in instances where list.contains(UInt16(instance)) { remove(instance, of: user) }
    }

    public func of(_ user: UserID) -> [Int] { instances[user]?.map(Int.init) ?? [] }
}
