public import PushLink
public import Wire

/// The instances (by number) and their sessions that one record goes to. Kept and filled again for each record, so that
/// routing allocates nothing.
public struct Targets {
    /// The instances with at least one session, in the order in which they came up.
    public private(set) var instances: [Int] = []
    private var sessions: [[SessionNumber]] = []

    public init() {}

    public mutating func removeAll() {
        for instance in instances { sessions[instance].removeAll(keepingCapacity: true) }
        instances.removeAll(keepingCapacity: true)
    }

    @inline(__always)
    mutating func add(_ instance: Int, _ session: SessionNumber) {
        if instance >= sessions.count {
            sessions += [[SessionNumber]](repeating: [], count: instance + 1 - sessions.count)
        }
        if sessions[instance].isEmpty { instances.append(instance) }
        sessions[instance].append(session)
    }

    public func sessions(of instance: Int) -> [SessionNumber] {
        instance < sessions.count ? sessions[instance] : []
    }
}

/// The sessions of one partition: by user, by (instance, number), by large chat.
///
/// A session is 40 bytes in one array, chained to the user's other sessions, and 4 to 11 in the table that finds it by
/// its instance and number.
public struct Router {
    struct Session {
        var device: DeviceID
        var openedUs: Int64
        /// The user's number in the partition's `UserTable`.
        var user: UInt32
        var number: SessionNumber
        var nextOfUser: UInt32
        var instance: UInt16
        /// Of the link on which the instance named it last.
        var generation: UInt8
        var isFree: Bool
    }

    static let none = UInt32.max

    private var sessions: [Session] = []
    private var freeList = none
    /// The first session of each user.
    private var heads: [UInt32] = []
    private var numbers = [UInt32](repeating: none, count: 64)
    private var chats = LargeChats()
    public private(set) var count = 0
    public private(set) var onlineUserCount = 0

    public init() {}

    // MARK: - Sessions

    public enum Registered: Equatable, Sendable {
        case first
        case further
        /// The instance has named it before; it was taken anew.
        case again
    }

    /// - Parameter largeChats: what the session's user is in, by all that is known.
    @discardableResult
    public mutating func register(
        _ session: SessionRegistration, user: Int, largeChats: [ChatID], instance: Int, generation: UInt8 = 0
    ) -> Registered {
        if let known = find(instance, session.number) {
            let slot = Int(numbers[known])
            guard Int(sessions[slot].user) != user || sessions[slot].device != session.device else {
                sessions[slot].generation = generation
                chats.leaveAll(session: UInt32(slot))
                for chat in largeChats { chats.join(chat, session: UInt32(slot)) }
                return .again
            }
            // A number given anew means that the old session is gone.
            remove(at: known)
        }
        if user >= heads.count {
            heads += [UInt32](repeating: Self.none, count: max(user + 1, heads.count * 2) - heads.count)
        }
        let first = heads[user] == Self.none
        let made = Session(
            device: session.device, openedUs: session.openedUs, user: UInt32(user), number: session.number,
            nextOfUser: heads[user], instance: UInt16(instance), generation: generation, isFree: false)
        let slot: UInt32
        if freeList != Self.none {
            slot = freeList
            freeList = sessions[Int(slot)].nextOfUser
            sessions[Int(slot)] = made
        } else {
            slot = UInt32(sessions.count)
            sessions.append(made)
        }
        for chat in largeChats { chats.join(chat, session: slot) }
        heads[user] = slot
        insertNumber(slot)
        count += 1
        if first { onlineUserCount += 1 }
        return first ? .first : .further
    }

    /// The sessions that end when a device names one that it has opened on this instance: a device has one, the last that it
    /// opened, in whichever order they come to be known. That is the newcomer itself, or those on other instances; an
    /// instance ends its own.
    /// - Parameter outranks: of two instances with sessions of the same time, whether the first one's stays.
    public func overtaken(
        by newcomer: SessionRegistration, user: Int, instance: Int, outranks: (_ instance: Int, _ other: Int) -> Bool
    ) -> [(instance: Int, number: SessionNumber)] {
        var older: [(instance: Int, number: SessionNumber)] = []
        var slot = user < heads.count ? heads[user] : Self.none
        while slot != Self.none {
            let session = sessions[Int(slot)]
            let other = Int(session.instance)
            if session.device == newcomer.device, other != instance {
                let isYounger =
                    session.openedUs == newcomer.openedUs
                    ? outranks(other, instance) : session.openedUs > newcomer.openedUs
                if isYounger { return [(instance, newcomer.number)] }
                older.append((other, session.number))
            }
            slot = session.nextOfUser
        }
        return older
    }

    /// Forgets a session; answers its user, and whether it was the user's last.
    @discardableResult
    public mutating func unregister(instance: Int, number: SessionNumber) -> (user: Int, wasLast: Bool)? {
        guard let place = find(instance, number) else { return nil }
        return remove(at: place)
    }

    /// Forgets an instance's sessions, but for those that it named in the generation to keep; `body` hears of each user
    /// that has none left, and which large chats it was in.
    public mutating func removeInstance(
        _ instance: Int, keeping generation: UInt8? = nil, _ body: (_ user: Int, _ largeChats: [ChatID]) -> Void
    ) {
        for slot in sessions.indices where !sessions[slot].isFree && Int(sessions[slot].instance) == instance {
            if sessions[slot].generation == generation { continue }
            guard let place = find(instance, sessions[slot].number) else { continue }
            let largeChats = chats.chats(of: UInt32(slot))
            let (user, wasLast) = remove(at: place)
            if wasLast { body(user, largeChats) }
        }
    }

    @discardableResult
    private mutating func remove(at place: Int) -> (user: Int, wasLast: Bool) {
        let slot = numbers[place]
        removeNumber(at: place)
        let session = sessions[Int(slot)]
        chats.leaveAll(session: slot)
        let user = Int(session.user)
        if heads[user] == slot {
            heads[user] = session.nextOfUser
        } else {
            var previous = Int(heads[user])
            while sessions[previous].nextOfUser != slot { previous = Int(sessions[previous].nextOfUser) }
            sessions[previous].nextOfUser = session.nextOfUser
        }
        sessions[Int(slot)].isFree = true
        sessions[Int(slot)].nextOfUser = freeList
        freeList = slot
        count -= 1
        let wasLast = heads[user] == Self.none
        if wasLast { onlineUserCount -= 1 }
        return (user, wasLast)
    }

    // MARK: - Large chats

    /// A record says that the user enters or leaves a large chat: so do all of its sessions.
    public mutating func declare(user: Int, chat: ChatID, isMember: Bool) {
        guard user < heads.count else { return }
        var slot = heads[user]
        while slot != Self.none {
            if isMember {
                chats.join(chat, session: slot)
            } else {
                chats.leave(chat, session: slot)
            }
            slot = sessions[Int(slot)].nextOfUser
        }
    }

    // MARK: - Routing

    public func isOnline(user: Int) -> Bool { user < heads.count && heads[user] != Self.none }

    /// The instances that a user's sessions are on.
    func instances(of user: Int) -> [Int] {
        var instances: [Int] = []
        var slot = user < heads.count ? heads[user] : Self.none
        while slot != Self.none {
            instances.append(Int(sessions[Int(slot)].instance))
            slot = sessions[Int(slot)].nextOfUser
        }
        return instances
    }

    /// Who has a session in the chat.
    func users(inLargeChat chat: ChatID) -> [Int] {
        Set(chats.sessions(of: chat).map { Int(sessions[Int($0)].user) }).sorted()
    }

    /// Adds the user's sessions; answers whether there are any.
    @discardableResult
    @inline(__always)
    public func route(user: Int, device: DeviceID? = nil, into targets: inout Targets) -> Bool {
        guard user < heads.count else { return false }
        var slot = heads[user]
        guard slot != Self.none else { return false }
        repeat {
            let session = sessions[Int(slot)]
            if device == nil || device == session.device { targets.add(Int(session.instance), session.number) }
            slot = session.nextOfUser
        } while slot != Self.none
        return true
    }

    /// Adds every session that declared the chat.
    public func route(largeChat chat: ChatID, into targets: inout Targets) {
        for slot in chats.sessions(of: chat) {
            let session = sessions[Int(slot)]
            targets.add(Int(session.instance), session.number)
        }
    }

    /// Who a session is: its user and large chats, as a fill needs them.
    public func session(
        instance: Int, number: SessionNumber
    ) -> (user: Int, device: DeviceID, largeChats: [ChatID])? {
        guard let place = find(instance, number) else { return nil }
        let slot = numbers[place]
        let session = sessions[Int(slot)]
        return (Int(session.user), session.device, chats.chats(of: slot))
    }

    // MARK: - By instance and number

    @inline(__always)
    private static func hash(_ instance: Int, _ number: SessionNumber) -> Int {
        let mixed = (UInt64(instance) << 32 | UInt64(number)) &* 0x9e37_79b9_7f4a_7c15
        return Int(truncatingIfNeeded: mixed >> 32)
    }

    private func find(_ instance: Int, _ number: SessionNumber) -> Int? {
        let mask = numbers.count - 1
        var place = Self.hash(instance, number) & mask
        while numbers[place] != Self.none {
            let session = sessions[Int(numbers[place])]
            if session.number == number, Int(session.instance) == instance { return place }
            place = (place &+ 1) & mask
        }
        return nil
    }

    private mutating func insertNumber(_ slot: UInt32) {
        if (count + 1) * 4 > numbers.count * 3 {
            var old = [UInt32](repeating: Self.none, count: numbers.count * 2)
            swap(&old, &numbers)
            for slot in old where slot != Self.none { placeNumber(slot) }
        }
        placeNumber(slot)
    }

    private mutating func placeNumber(_ slot: UInt32) {
        let mask = numbers.count - 1
        let session = sessions[Int(slot)]
        var place = Self.hash(Int(session.instance), session.number) & mask
        while numbers[place] != Self.none { place = (place &+ 1) & mask }
        numbers[place] = slot
    }

    /// Linear probing without tombstones: what follows in the run moves up into the hole when it may.
    private mutating func removeNumber(at start: Int) {
        let mask = numbers.count - 1
        var hole = start
        var place = (start &+ 1) & mask
        while numbers[place] != Self.none {
            let session = sessions[Int(numbers[place])]
            let home = Self.hash(Int(session.instance), session.number) & mask
            if (place &- home) & mask >= (place &- hole) & mask {
                numbers[hole] = numbers[place]
                hole = place
            }
            place = (place &+ 1) & mask
        }
        numbers[hole] = Self.none
    }
}
