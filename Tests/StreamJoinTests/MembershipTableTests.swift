import TestSupport
import Testing
import Wire

@testable import StreamJoin

/// What the table must be equal to: plain dictionaries.
struct PlainMembership: Equatable {
    struct Chat: Equatable {
        var version: Int64 = 0
        var isPresent = false
        var members: [UserID: MemberRow.Role] = [:]
    }
    var chats: [ChatID: Chat] = [:]

    mutating func tidy(_ chat: ChatID) {
        if let entry = chats[chat], !entry.isPresent, entry.members.isEmpty { chats[chat] = nil }
    }
}

func plain(_ table: borrowing MembershipTable) -> PlainMembership {
    var chats: [ChatID: PlainMembership.Chat] = [:]
    table.forEachChat { id, chat in
        var entry = PlainMembership.Chat(version: table.metaVersion(of: chat), isPresent: table.exists(chat))
        table.forEachMember(of: chat) { user, role in
            #expect(entry.members.updateValue(role, forKey: user) == nil, "a member is kept once")
        }
        #expect(entry.members.count == table.memberCount(of: chat))
        chats[id] = entry
    }
    return PlainMembership(chats: chats)
}

func listed(_ table: borrowing MembershipTable, _ chat: MembershipTable.Chat) -> [(partition: Int32, user: UserID)] {
    var result: [(partition: Int32, user: UserID)] = []
    for cell in table.cells(of: chat) {
        let member = table.member(at: cell)
        result.append((table.partition(of: member), table.user(of: member)))
    }
    return result
}

@Suite struct MembershipTableTests {
    @Test func `blocks come in classes that waste at most a fifth`() {
        var last = 0
        for count in 1...100_000 {
            let sizeClass = MemberArena.sizeClass(for: count)
            let size = MemberArena.size(ofClass: sizeClass)
            #expect(size >= count)
            #expect(size <= 8 || (size - count) * 5 <= size)
            #expect(sizeClass == last || sizeClass == last + 1)
            #expect(sizeClass < MemberArena.classCount)
            last = sizeClass
        }
    }

    @Test(arguments: [8, 12, 64])
    func `equals plain dictionaries after any history`(listedMax: Int) {
        var random = SeededGenerator.announced("table with lists of up to \(listedMax)")
        var table = MembershipTable(deliveryPartitions: 5, listedMax: listedMax)
        var model = PlainMembership()
        let chats = (0..<12).map { _ in ChatID.random(using: &random) }
        let users = (0..<150).map { _ in UserID.random(using: &random) }
        for step in 0..<30_000 {
            let chat = chats.randomElement(using: &random)!
            let user = users.randomElement(using: &random)!
            // Phases of growth and shrinkage carry chats over the border between the layouts again and again.
            let grows = step / 1500 % 2 == 0
            switch Int.random(in: 0..<100, using: &random) {
            case 0..<(grows ? 70 : 25):
                let role: MemberRow.Role = Bool.random(using: &random) ? .admin : .member
                let before = model.chats[chat]?.members[user]
                model.chats[chat, default: .init()].members[user] = role
                let change = table.put(user, in: chat, role: role)
                #expect(change == (before == nil ? .added : before == role ? .none : .role))
            case 70..<95, 25..<70:
                let before = model.chats[chat]?.members.removeValue(forKey: user)
                model.tidy(chat)
                #expect(table.remove(user, from: chat) == (before == nil ? .none : .removed))
            case 95..<98:
                let version = Int64.random(in: 0..<1 << 50, using: &random)
                model.chats[chat, default: .init()].version = version
                model.chats[chat]?.isPresent = true
                table.setChat(chat, metaVersion: version)
            case 98:
                model.chats[chat]?.isPresent = false
                model.tidy(chat)
                table.deleteChat(chat)
            default:
                if step % 7 == 0 { table.compact() }
            }
            let found = table.find(chat)
            #expect((found != nil) == (model.chats[chat] != nil))
            if let found {
                #expect(table.member(user, of: found)?.role == model.chats[chat]?.members[user])
            }
            if step % 500 == 0 { #expect(plain(table) == model) }
        }
        #expect(plain(table) == model)
        #expect(table.memberCount == model.chats.values.reduce(0) { $0 + $1.members.count })
        #expect(table.chatCount == model.chats.count)
        #expect(table.userCount == Set(model.chats.values.flatMap(\.members.keys)).count)
    }

    @Test func `recipients of one delivery partition lie side by side`() {
        var random = SeededGenerator.announced("grouping")
        var table = MembershipTable(deliveryPartitions: 16, listedMax: 512)
        let chat = ChatID.random(using: &random)
        var members: [UserID] = []
        for count in 1...512 {
            members.append(UserID.random(using: &random))
            table.put(members[count - 1], in: chat, role: .member)
            guard count % 37 == 0 || count == 512 else { continue }
            let found = listed(table, table.find(chat)!)
            #expect(found.map(\.partition) == found.map(\.partition).sorted())
            #expect(Set(found.map(\.user)) == Set(members))
            for (partition, user) in found { #expect(user.partition(count: 16) == partition) }
        }
    }

    @Test func `a table that is loaded in any order equals one that was built in order`() {
        var random = SeededGenerator.announced("loading")
        var built = MembershipTable(deliveryPartitions: 7, listedMax: 32)
        var loaded = MembershipTable(deliveryPartitions: 7, listedMax: 32)
        let chats = (0..<20).map { _ in ChatID.random(using: &random) }
        let users = (0..<60).map { _ in UserID.random(using: &random) }
        loaded.beginLoading()
        for _ in 0..<5000 {
            let (chat, user) = (chats.randomElement(using: &random)!, users.randomElement(using: &random)!)
            if Int.random(in: 0..<5, using: &random) < 3 {
                let role: MemberRow.Role = Bool.random(using: &random) ? .admin : .member
                built.put(user, in: chat, role: role)
                loaded.put(user, in: chat, role: role)
            } else {
                built.remove(user, from: chat)
                loaded.remove(user, from: chat)
            }
        }
        loaded.endLoading()
        #expect(plain(loaded) == plain(built))
        for chat in chats {
            guard let found = loaded.find(chat), loaded.isListed(found) else { continue }
            let partitions = listed(loaded, found).map(\.partition)
            #expect(partitions == partitions.sorted())
        }
    }

    @Test func `a shadow is joined against until the log has reached its version`() {
        var random = SeededGenerator.announced("shadow")
        var table = MembershipTable(deliveryPartitions: 4, listedMax: 64)
        let chat = ChatID.random(using: &random)
        let (old, new) = (UserID.random(using: &random), UserID.random(using: &random))
        table.put(old, in: chat, role: .member)
        table.setChat(chat, metaVersion: 3)
        let before = plain(table)
        table.setShadow(ChatMembership(chat: chat, metaVersion: 5, members: [.init(new, .admin)]))
        #expect(table.memberCount == 1)
        var found = table.find(chat)!
        #expect(table.metaVersion(of: found) == 5)
        #expect(table.member(new, of: found)?.role == .admin)
        #expect(table.member(old, of: found) == nil)
        #expect(plain(table) == before)

        table.put(new, in: chat, role: .admin)
        table.setChat(chat, metaVersion: 4)
        #expect(table.metaVersion(of: table.find(chat)!) == 5)
        table.remove(old, from: chat)
        table.setChat(chat, metaVersion: 5)
        #expect(table.shadowCount == 0)
        found = table.find(chat)!
        #expect(found == table.findLogged(chat))
        #expect(table.member(new, of: found) != nil)
        #expect(table.userCount == 1)
        #expect(table.memberCount == 1)
    }

    @Test func `a partition that has gone takes its chats and users along`() {
        var random = SeededGenerator.announced("revocation")
        var table = MembershipTable(deliveryPartitions: 4, listedMax: 16)
        var model = PlainMembership()
        let users = (0..<300).map { _ in UserID.random(using: &random) }
        for index in 0..<200 {
            let chat = ChatID.random(using: &random)
            let keeps = chat.partition(count: 4) != 2
            for user in users.shuffled(using: &random).prefix(index % 40) {
                table.put(user, in: chat, role: .member)
                if keeps { model.chats[chat, default: .init()].members[user] = .member }
            }
            guard index % 3 == 0 else { continue }
            table.setShadow(ChatMembership(chat: chat, metaVersion: 9, members: [.init(users[index], .member)]))
        }
        table.removeChats(ofPartition: 2, of: 4)
        #expect(plain(table) == model)
        #expect(table.userCount <= Set(model.chats.values.flatMap(\.members.keys)).count + table.shadowCount)
    }

    @Test func `a chat of 100,000 members grows, answers and shrinks without quadratic work`() {
        var random = SeededGenerator.announced("large chat")
        var table = MembershipTable(deliveryPartitions: 16, listedMax: 1024)
        let chat = ChatID.random(using: &random)
        let users = (0..<100_000).map { _ in UserID.random(using: &random) }
        let clock = ContinuousClock()
        let time = clock.measure {
            for user in users { table.put(user, in: chat, role: .member) }
            for user in users { #expect(table.member(user, of: table.find(chat)!) != nil) }
            for user in users.dropFirst(10) { table.remove(user, from: chat) }
        }
        #expect(Set(listed(table, table.find(chat)!).map(\.user)) == Set(users.prefix(10)))
        #expect(table.userCount == 10)
        // Quadratic work is minutes even in a release build; this holds in a debug build on a busy machine.
        #expect(time < .seconds(60))
    }
}
