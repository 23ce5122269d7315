import Wire

/// Which sessions declared which large chats. Joining and leaving cost the same however many are in the chat, so that
/// 100,000 members of one chat can go offline at once.
struct LargeChats {
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

    mutating func join(_ id: ChatID, session: UInt32, _ head: inout UInt32) {
        guard !contains(id, from: head) else { return }
        let number = intern(id)
        let made = Place(chat: number, position: UInt32(chats[Int(number)].sessions.count), nextOfSession: head)
        if let free = freePlaces.popLast() {
            places[Int(free)] = made
            head = free
        } else {
            head = UInt32(places.count)
            places.append(made)
        }
        chats[Int(number)].sessions.append(session)
        chats[Int(number)].places.append(head)
    }

    mutating func leave(_ id: ChatID, _ head: inout UInt32) {
        guard let number = numbers[id] else { return }
        var previous = Router.none
        var place = head
        while place != Router.none {
            let next = places[Int(place)].nextOfSession
            if places[Int(place)].chat == number {
                if previous == Router.none { head = next } else { places[Int(previous)].nextOfSession = next }
                remove(place)
                return
            }
            previous = place
            place = next
        }
    }

    mutating func leaveAll(_ head: inout UInt32) {
        while head != Router.none {
            let next = places[Int(head)].nextOfSession
            remove(head)
            head = next
        }
    }

    func sessions(of id: ChatID) -> [UInt32] {
        guard let number = numbers[id] else { return [] }
        return chats[Int(number)].sessions
    }

    func chats(from head: UInt32) -> [ChatID] {
        var list: [ChatID] = []
        var place = head
        while place != Router.none {
            list.append(chats[Int(places[Int(place)].chat)].id)
            place = places[Int(place)].nextOfSession
        }
        return list
    }

    private func contains(_ id: ChatID, from head: UInt32) -> Bool {
        guard let number = numbers[id] else { return false }
        var place = head
        while place != Router.none {
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
