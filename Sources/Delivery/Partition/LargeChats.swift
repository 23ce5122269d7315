import Wire

/// Which sessions (by their place in the router) declared which large chats. Joining and leaving cost the same however many
/// are in the chat, so that 100,000 members of one chat can go offline at once; a session that is in none costs nothing.
struct LargeChats {
    private static let none = UInt32.max

    /// One session's place in one chat.
    private struct Place {
        var chat: UInt32
        /// Where the session stands in the chat's list.
        var position: UInt32
        var nextOfSession: UInt32
    }

    private struct Chat {
        var id: ChatID
        var sessions: [UInt32] = []
        /// The place that each entry of `sessions` belongs to.
        var places: [UInt32] = []
    }

    private var chats: [Chat] = []
    private var numbers: [ChatID: UInt32] = [:]
    private var freeChats: [UInt32] = []
    private var places: [Place] = []
    private var freePlaces: [UInt32] = []
    /// The first place of each session that has one.
    private var heads: [UInt32: UInt32] = [:]

    mutating func join(_ id: ChatID, session: UInt32) {
        guard !contains(id, session) else { return }
        let number = intern(id)
        let made = Place(
            chat: number, position: UInt32(chats[Int(number)].sessions.count),
            nextOfSession: heads[session] ?? Self.none)
        let place: UInt32
        if let free = freePlaces.popLast() {
            place = free
            places[Int(free)] = made
        } else {
            place = UInt32(places.count)
            places.append(made)
        }
        heads[session] = place
        chats[Int(number)].sessions.append(session)
        chats[Int(number)].places.append(place)
    }

    mutating func leave(_ id: ChatID, session: UInt32) {
        guard let number = numbers[id], var place = heads[session] else { return }
        var previous = Self.none
        while place != Self.none {
            let next = places[Int(place)].nextOfSession
            if places[Int(place)].chat == number {
                if previous != Self.none {
                    places[Int(previous)].nextOfSession = next
                } else {
                    heads[session] = next == Self.none ? nil : next
                }
                remove(place)
                return
            }
            previous = place
            place = next
        }
    }

    mutating func leaveAll(session: UInt32) {
        guard var place = heads.removeValue(forKey: session) else { return }
        while place != Self.none {
            let next = places[Int(place)].nextOfSession
            remove(place)
            place = next
        }
    }

    func sessions(of id: ChatID) -> [UInt32] {
        guard let number = numbers[id] else { return [] }
        return chats[Int(number)].sessions
    }

    func chats(of session: UInt32) -> [ChatID] {
        var list: [ChatID] = []
        var place = heads[session] ?? Self.none
        while place != Self.none {
            list.append(chats[Int(places[Int(place)].chat)].id)
            place = places[Int(place)].nextOfSession
        }
        return list
    }

    private func contains(_ id: ChatID, _ session: UInt32) -> Bool {
        guard let number = numbers[id], var place = heads[session] else { return false }
        while place != Self.none {
            if places[Int(place)].chat == number { return true }
            place = places[Int(place)].nextOfSession
        }
        return false
    }

    private mutating func intern(_ id: ChatID) -> UInt32 {
        if let number = numbers[id] { return number }
        let number: UInt32
        if let free = freeChats.popLast() {
            number = free
            chats[Int(free)] = Chat(id: id)
        } else {
            number = UInt32(chats.count)
            chats.append(Chat(id: id))
        }
        numbers[id] = number
        return number
    }

    /// The chat's last session takes the place of the one that leaves.
    private mutating func remove(_ place: UInt32) {
        let number = Int(places[Int(place)].chat)
        let position = Int(places[Int(place)].position)
        let last = chats[number].sessions.count - 1
        if position != last {
            chats[number].sessions[position] = chats[number].sessions[last]
            chats[number].places[position] = chats[number].places[last]
            places[Int(chats[number].places[position])].position = UInt32(position)
        }
        chats[number].sessions.removeLast()
        chats[number].places.removeLast()
        if last == 0 {
            numbers[chats[number].id] = nil
            freeChats.append(UInt32(number))
        }
        freePlaces.append(place)
    }
}
